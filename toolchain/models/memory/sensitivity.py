"""Kinds of models that are known to lose more than most by a coarse cache, whatever fits.

What one model loses, `quality.guard` and `validate` measure; this is what its header alone shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...core.cachetypes.grammar import CacheTypes, LayerTypes, parse
from ...core.cachetypes.table import bits_per_value, standard, type_table
from ...stages import CacheType
from . import architectures
from .geometry import Geometry
from .kv import obstacle

GENTLE = "q8_0"
"""the coarsest type that no model is known to suffer from much"""
_GENTLE_BITS = bits_per_value(type_table(())[GENTLE])
_SINKS = (
    "its attention has sinks: users of gpt-oss report a median KL of 0.23 with turbo4 for K, of 0.74 with turbo3, and "
    "of 0.055 with q8_0 (TheTom/llama-cpp-turboquant #305)"
)
_MLA = (
    "MLA keeps V in the rows of K, so V has the error of K as well; quality.guard measures it, and cannot predict it "
    "from the weights"
)


def coarse(side: LayerTypes, shape: Geometry, table: Mapping[str, CacheType]) -> bool:
    """Whether any layer has fewer bits than `GENTLE`."""
    return any(bits_per_value(table[kind]) < _GENTLE_BITS for kind in side.each(len(shape.cached)))


def known_loss(shape: Geometry, types: CacheTypes, table: Mapping[str, CacheType], name: str) -> str:
    """Why the model called `name` may lose much by the types, which it supports; empty if nothing is known."""
    coarse_k, coarse_v = coarse(types.k, shape, table), coarse(types.v, shape, table)
    if shape.sinks and (coarse_k or coarse_v):
        return _SINKS
    if shape.mla and coarse_k:
        return _MLA
    if coarse_k and shape.architecture in architectures.EXTREME_KEYS:
        return f"its keys may be too extreme: `./inv quality.guard --model {name}` measures it"
    return ""


def fails_quantized(architecture: str, types: CacheTypes, table: Mapping[str, CacheType]) -> str:
    """Why an architecture fails with any quantized cache; empty where it does not, or where none is asked for."""
    quantized = any(name in table and table[name].quantized for name in types.names())
    return architectures.QUANTIZED_FAILS.get(architecture, "") if quantized else ""


def candidates(added: Sequence[CacheType]) -> tuple[str, ...]:
    """Gentler types, the coarsest first."""
    return tuple(dict.fromkeys((f"{GENTLE}:{standard(added)}", GENTLE, "f16")))


def gentler(shape: Geometry, added: Sequence[CacheType]) -> str:
    """The coarsest of the candidates that the model supports without a known loss."""
    table = type_table(added)
    for text in candidates(added):
        one = parse(text)
        if not obstacle(shape, one, table) and not known_loss(shape, one, table, ""):
            return text
    return "f16"
