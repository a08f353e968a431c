"""The checklist's judgement of attention on a device: whether each case is computed there, and as the reference."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from ..core.cachetypes.table import BESIDE
from .probed import AttentionEvidence, Device

HEAD_SIZES = (64, 128, 256)
MASKS = ("none", "causal", "empty")
KEYS = BESIDE[0]
"""keys of the mixed pair"""
MAX_ERROR = 0.02
"""a query is rounded to q8_0 or f16 before it is multiplied with a quantized key"""
_MOST_NAMED = 4
_MASK_WORDS = {"none": "without a mask", "causal": "with a mask", "empty": "with a mask that hides whole tiles"}


def of(device: Device, name: str) -> tuple[AttentionEvidence, ...]:
    """The cases of a type on a device, also those that it does not support."""
    return next((kind.attention for kind in device.types if kind.name == name), ())


def wrong(device: Device, name: str) -> str:
    """The cases that the device computes otherwise than the reference; empty if there are none."""
    return _listed(
        f"{case(one)} on {device.name}: error {one.error:.2g}"
        for one in of(device, name)
        if one.of and not one.error <= MAX_ERROR
    )


def missing(device: Device, name: str) -> str:
    """The required cases that the device does not compute itself; empty if there are none.

    Required are all head sizes, masks, one query and many, with K and V of the type and with `KEYS` beside it, in
    groups of query heads; and without groups under a causal mask.
    """
    done = {_kind(one) for one in of(device, name) if one.of}
    stated = {_kind(one): one for one in of(device, name)}
    pairs = ((name, name), (KEYS, name))
    grouped = product(pairs, HEAD_SIZES, MASKS, (False, True), (True,))
    single = product(pairs[:1], HEAD_SIZES, ("causal",), (False, True), (False,))
    return _listed(
        f"{case(stated[kind]) if kind in stated else _words(kind)} on {device.name}: unsupported"
        for kind in (*grouped, *single)
        if kind not in done
    )


Kind = tuple[tuple[str, str], int, str, bool, bool]
"""K and V, head size, mask, whether there are many queries, whether query heads share a KV head"""


def _kind(one: AttentionEvidence) -> Kind:
    return (one.k, one.v), one.head_size, one.mask, one.queries > 1, one.heads > one.kv_heads


def case(one: AttentionEvidence) -> str:
    """The operation and the case, as in `FLASH_ATTN_EXT of turbo4 at head size 64 with a mask, 1 query, 8:2 heads`."""
    queries = "1 query" if one.queries == 1 else f"{one.queries} queries"
    return f"{_head((one.k, one.v), one.head_size, one.mask)}, {queries}, {one.heads}:{one.kv_heads} heads"


def _words(kind: Kind) -> str:
    pair, size, mask, many, grouped = kind
    return f"{_head(pair, size, mask)}, {'many queries' if many else '1 query'}{', grouped heads' if grouped else ''}"


def _head(pair: tuple[str, str], size: int, mask: str) -> str:
    names = pair[0] if pair[0] == pair[1] else ":".join(pair)
    return f"FLASH_ATTN_EXT of {names} at head size {size} {_MASK_WORDS.get(mask, mask)}"


def _listed(found: Iterator[str]) -> str:
    each = list(found)
    more = f"; and {len(each) - _MOST_NAMED} more cases" if len(each) > _MOST_NAMED else ""
    return "; ".join(each[:_MOST_NAMED]) + more
