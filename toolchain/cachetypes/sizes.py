"""How many bytes the values of a cache type take."""

from __future__ import annotations

from collections.abc import Iterable

from ..stages import CacheType

UPSTREAM_TYPES = tuple(
    CacheType(name=name, block=block, bytes=size)
    for name, block, size in (
        ("f32", 1, 4),
        ("f16", 1, 2),
        ("bf16", 1, 2),
        ("q8_0", 32, 34),
        ("q5_1", 32, 24),
        ("q5_0", 32, 22),
        ("q4_1", 32, 20),
        ("q4_0", 32, 18),
        ("iq4_nl", 32, 18),
    )
)
"""The cache types that llama.cpp has without us: `bytes` for each block of values."""


def type_table(added: Iterable[CacheType]) -> dict[str, CacheType]:
    """Every cache type that a release knows, by name: upstream's and those `added` by the series."""
    return {kind.name: kind for kind in (*UPSTREAM_TYPES, *added)}


def bits_per_value(kind: CacheType) -> float:
    """What one cached value costs, in bits."""
    return kind.bytes * 8 / kind.block


def row_bytes(kind: CacheType, values: int) -> int:
    """Bytes of a row of `values`, a multiple of the type's block."""
    return values // kind.block * kind.bytes
