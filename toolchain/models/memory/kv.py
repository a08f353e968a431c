"""Bytes of every cache that llama-server allocates for a model, as exactly as it allocates them.

    cells    = ceil(context / 256) * 256                                  for each stream
    windowed = ceil(min(cells, window + batch) / 256) * 256               the window once for each sequence of a
                                                                          unified cache
    bytes    = sum over layers (row bytes of K + row bytes of V) * cells * streams
    state    = recurrent layers * values * 4 * sequences

(llama_context, llama_kv_cache, llama_kv_cache_iswa and llama_memory_recurrent of llama.cpp b10470.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...core.cachetypes.grammar import CacheTypes
from ...core.cachetypes.table import bits_per_value, row_bytes
from ...core.errors import ConfigError
from ...core.records import record
from ...stages import CacheType
from .geometry import CachedLayer, Geometry

PADDING = 256
"""llama.cpp rounds the cells of a context, and of a window, up to a multiple of this"""
_FLOAT = 4


@record
class Setting:
    """The settings of llama-server. Ollama passes num_ctx times the sequences as --ctx-size."""

    context: int
    """tokens of one sequence"""
    sequences: int = 1
    """--parallel, OLLAMA_NUM_PARALLEL"""
    unified: bool = False
    """--kv-unified: one cache for all sequences, which share its cells"""
    batch: int = 512
    """--ubatch-size; Ollama's num_batch"""

    @property
    def cells(self) -> int:
        """Cells of one stream of a full cache."""
        whole = padded(self.context * self.sequences)
        return whole if self.unified else padded(whole // self.sequences)

    @property
    def streams(self) -> int:
        """Number of caches in one tensor."""
        return 1 if self.unified else self.sequences

    @property
    def tokens(self) -> int:
        """Tokens that are processed at once."""
        return min(self.batch, self.context * self.sequences)


@record
class CacheSize:
    """One cache of the log. `cells` are of one stream; layers without K and V values count as well."""

    name: str
    cells: int
    streams: int
    layers: int
    k: int
    v: int

    @property
    def bytes(self) -> int:
        """K and V."""
        return self.k + self.v


@record
class CacheSizes:
    """All caches of a setting, in bytes. `state` belongs to recurrent layers and does not depend on the context."""

    caches: tuple[CacheSize, ...]
    state: int

    @property
    def bytes(self) -> int:
        """Caches and state."""
        return sum(cache.bytes for cache in self.caches) + self.state


def padded(cells: int) -> int:
    """Rounded up as in llama.cpp."""
    return -(-cells // PADDING) * PADDING


def sizes(geometry: Geometry, types: CacheTypes, setting: Setting, table: Mapping[str, CacheType]) -> CacheSizes:
    """The caches of a model, in the log's order: full attention, then windowed, then the indexer's.

    `table` has the size of every type. Raises `ConfigError` if llama.cpp would refuse the types.
    """
    if why := obstacle(geometry, types, table):
        raise ConfigError(f"{types}: {why}")
    window_cells = _window_cells(geometry.window, setting)
    full = [layer for layer in geometry.cached if not layer.windowed]
    windowed = [layer for layer in geometry.cached if layer.windowed]
    caches = [_size("full", full, geometry, types, setting, setting.cells, table)] if geometry.cached else []
    if geometry.window:
        caches.append(_size("window", windowed, geometry, types, setting, window_cells, table))
    if geometry.indexer:
        caches.append(_size("indexer", geometry.indexer, geometry, types, setting, setting.cells, table))
    state = geometry.recurrent_layers * geometry.state_values * _FLOAT * setting.sequences
    return CacheSizes(caches=tuple(caches), state=state)


def obstacle(geometry: Geometry, types: CacheTypes, table: Mapping[str, CacheType]) -> str:
    """Why llama.cpp would not load the model with these types; empty when it would.

    Raises `ConfigError` for a type that `table` lacks, or a rule for layers that the model lacks.
    """
    for name in types.names():
        if name not in table:
            raise ConfigError(f"{name}: no such cache type", hint=f"known: {', '.join(table)}")
    layers = len(geometry.cached)
    if not layers:
        return ""
    each_k, each_v = types.k.each(layers), types.v.each(layers)
    if geometry.mla and (each_k != each_v or types.k.base != types.v.base):
        return "a model with MLA caches only K, and needs one setting for both"
    if geometry.indexer and (types.k.rules or types.v.rules):
        return "its layers have a second cache for the indexer, so rules are not supported"
    if not geometry.flash_attention and any(bits_per_value(table[name]) < 16 for name in types.v.names()):
        return f"{geometry.architecture} runs without flash attention, which a quantized V needs"
    for number, layer in enumerate(geometry.cached):
        # The base type must fit every layer, even those with another type by a rule.
        for side, head, names in (
            ("K", layer.head_k, (types.k.base, each_k[number])),
            ("V", layer.head_v, (types.v.base, each_v[number])),
        ):
            for name in names:
                if head % table[name].block:
                    return (
                        f"{side} has heads of {head} in layer {layer.index}, {name} has blocks of {table[name].block}"
                    )
    return ""


def _window_cells(window: int, setting: Setting) -> int:
    sequences = setting.sequences if setting.unified else 1
    return padded(min(setting.cells, window * sequences + setting.tokens))


def _size(
    name: str,
    layers: Sequence[CachedLayer],
    geometry: Geometry,
    types: CacheTypes,
    setting: Setting,
    cells: int,
    table: Mapping[str, CacheType],
) -> CacheSize:
    """Layers are counted over all cached layers, so that a rule means the same layer in both caches of a split one."""
    place = {layer.index: number for number, layer in enumerate(geometry.cached)}
    each_k, each_v = types.k.each(len(geometry.cached)), types.v.each(len(geometry.cached))
    k = sum(row_bytes(table[each_k[place[layer.index]]], layer.k) for layer in layers)
    v = sum(row_bytes(table[each_v[place[layer.index]]], layer.v) for layer in layers)
    rows = cells * setting.streams
    return CacheSize(name=name, cells=cells, streams=setting.streams, layers=len(layers), k=k * rows, v=v * rows)
