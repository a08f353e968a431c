"""Whether llama.cpp rotates a cache's keys, which quantized K needs.

It does if all layers of a cache have heads of one size, a multiple of 64, and some layer's K is quantized
(llama_kv_cache of llama.cpp b8619 to b10587), unless LLAMA_ATTN_ROT_DISABLE=1 turns it off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...core.cachetypes.grammar import CacheTypes
from ...stages import CacheType
from .geometry import Geometry

SMALLEST = 64
"""rows of the smallest Hadamard matrix"""


def unrotated_heads(geometry: Geometry, types: CacheTypes, table: Mapping[str, CacheType]) -> tuple[int, ...]:
    """Head sizes of each cache whose quantized K is not rotated; empty if all are rotated.

    The model must support the types.
    """
    each = types.k.each(len(geometry.cached))
    sizes: dict[bool, set[int]] = {}
    quantized = set[bool]()
    for layer, name in zip(geometry.cached, each, strict=True):
        sizes.setdefault(layer.windowed, set()).add(layer.head_k)
        if table[name].block > 1:
            quantized.add(layer.windowed)
    found = [heads for windowed, heads in sizes.items() if windowed in quantized and not _rotated(heads)]
    return tuple(sorted(set().union(*found)))


def note(heads: Iterable[int]) -> str:
    """The consequence of such heads, for a plan."""
    listed = " and ".join(map(str, heads))
    return (
        f"heads of {listed}: llama.cpp leaves a quantized K unrotated, so it loses more than elsewhere; a context "
        "shift of it ends llama-server without the series (llama.cpp #25636), and works with it"
    )


def _rotated(heads: set[int]) -> bool:
    return len(heads) == 1 and min(heads) % SMALLEST == 0
