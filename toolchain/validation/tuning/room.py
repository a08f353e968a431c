"""The memory of a tuning: which types each layer may have, their bytes at a context, and the bytes there are."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from ...core.cachetypes.grammar import CacheTypes, LayerTypes
from ...core.cachetypes.table import BESIDE, UPSTREAM, bits_per_value, row_bytes
from ...core.errors import ConfigError
from ...core.records import record
from ...core.validation_errors import NothingFits
from ...models.memory.geometry import CachedLayer, Geometry
from ...models.memory.kv import CacheSizes, Setting, obstacle, sizes
from ...models.memory.plan import GIB, Hardware
from ...models.memory.working import working_bytes
from ...stages import CacheType
from .knapsack import Option

FLOAT = "f16"
USUAL = (FLOAT, "q8_0", "q5_1", "q5_0", "q4_0")
"""upstream's types to choose from; a CPU runs them all, in any pair"""


@record
class Pair:
    """Types of K and V of one layer, and their bytes."""

    k: str
    v: str
    bytes: int


def usual(added: Sequence[CacheType], *, metal: bool) -> tuple[str, ...]:
    """The types to choose from: those that the machine's attention kernels run."""
    return (*(name for name in USUAL if not metal or name in BESIDE), *(kind.name for kind in added))


def on_metal(ram: float) -> bool:
    """Whether the service runs on a Mac: this machine is one, or one of `ram` GiB is planned for."""
    return sys.platform == "darwin" or ram > 0


def suited(geometry: Geometry, names: Sequence[str], table: Mapping[str, CacheType]) -> tuple[CacheType, ...]:
    """The types that every layer can have. Raises `ConfigError` for an unknown one, a model that takes no rules, or
    when none but f16 is left."""
    if geometry.mla or geometry.indexer:
        raise ConfigError(
            "this model's K and V, or its layers, cannot have types of their own",
            hint="./inv quality.kl compares types for the whole cache",
        )
    if unknown := [name for name in names if name not in table]:
        raise ConfigError(f"--types {unknown[0]!r}: no such cache type", hint=", ".join(table))
    found = []
    for name in dict.fromkeys(names):
        one = LayerTypes(base=name)
        if not obstacle(geometry, CacheTypes(k=one, v=one), table):
            found.append(table[name])
    if not geometry.cached or not any(kind.quantized for kind in found):
        raise ConfigError("this model takes none of the quantized types", hint="--types names others")
    return tuple(found)


def groups(
    geometry: Geometry, types: Sequence[CacheType], setting: Setting, *, metal: bool
) -> tuple[tuple[Pair, ...], ...]:
    """The pairs of types that each layer may have."""
    cells = {cache.name: cache.cells * cache.streams for cache in _floats(geometry, setting).caches}
    return tuple(tuple(_pairs(layer, types, cells, metal=metal)) for layer in geometry.cached)


def options(
    pairs: Sequence[Sequence[Pair]], losses: Mapping[str, Sequence[Mapping[str, float]]]
) -> tuple[tuple[Option, ...], ...]:
    """The knapsack's groups: bytes and loss of each pair."""
    return tuple(
        tuple(Option(bytes=one.bytes, loss=losses["k"][layer][one.k] + losses["v"][layer][one.v]) for one in group)
        for layer, group in enumerate(pairs)
    )


def of_bits(geometry: Geometry, setting: Setting, bits: float) -> int:
    """Bytes of caches with so many bits per value. Raises `ConfigError` for bits that no type has."""
    if not 1 <= bits <= 16:
        raise ConfigError(f"--bits {bits:g}: expected 1 to 16 bits per value", hint="--bits 4.25 is turbo4's memory")
    return int(sum(cache.bytes for cache in _floats(geometry, setting).caches) * bits / 16)


def of_machine(geometry: Geometry, setting: Setting, machine: Hardware, weights: int) -> int:
    """Bytes that a machine leaves for the caches. Raises `NothingFits` when the rest exceeds its memory."""
    budget = min(machine.budget, machine.gpu or machine.budget)
    caches = _floats(geometry, setting)
    left = budget - weights - working_bytes(geometry, setting, caches) - caches.state
    if left <= 0:
        raise NothingFits(
            f"{(budget - left) / GIB:.1f} GiB besides the cache, {budget / GIB:.1f} GiB of memory",
            hint="a smaller model or context; ./inv memory shows what fits",
        )
    return left


def cache_bytes(geometry: Geometry, types: CacheTypes, setting: Setting, table: Mapping[str, CacheType]) -> int:
    """Bytes of all caches with these types; without recurrent layers' state, which no type changes. Raises
    `ConfigError` for a setting that the model cannot have."""
    return sum(cache.bytes for cache in sizes(geometry, types, setting, table).caches)


def bits_of(geometry: Geometry, types: CacheTypes, table: Mapping[str, CacheType]) -> float:
    """Mean bits per value of K and V, weighted by the values of each layer."""
    layers = len(geometry.cached)
    parts = [
        (bits_per_value(table[name]), values)
        for spec, held in ((types.k, [one.k for one in geometry.cached]), (types.v, [one.v for one in geometry.cached]))
        for name, values in zip(spec.each(layers), held, strict=True)
    ]
    return sum(bits * values for bits, values in parts) / sum(values for _, values in parts)


def _floats(geometry: Geometry, setting: Setting) -> CacheSizes:
    one = LayerTypes(base=FLOAT)
    return sizes(geometry, CacheTypes(k=one, v=one), setting, {kind.name: kind for kind in UPSTREAM})


def _pairs(layer: CachedLayer, types: Sequence[CacheType], cells: Mapping[str, int], *, metal: bool) -> Iterator[Pair]:
    ours = {kind.name for kind in types} - {kind.name for kind in UPSTREAM}
    rows = cells["window" if layer.windowed else "full"]
    for k in types:
        for v in types:
            if not metal or k == v or {k.name, v.name} & ours:
                yield Pair(k=k.name, v=v.name, bytes=rows * (row_bytes(k, layer.k) + row_bytes(v, layer.v)))
