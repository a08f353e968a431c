"""The draft that Ollama has llama-server load beside a model: a file of its own, or the model's further layers.

It gets a context of the model's length with a cache of its own, which is f16 whatever the model's is, as Ollama passes
no type for it. (llama_model::create_memory and common_base_params_to_speculative of llama.cpp b10488.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...core.cachetypes.grammar import parse
from ...core.errors import ArchitectureUnknown, ModelInvalid
from ...core.records import record
from ...stages import CacheType
from . import architectures as known
from . import geometry
from .geometry import Geometry
from .gguf import ModelHeader
from .kv import Setting, sizes
from .working import PROCESS_BYTES, working_bytes

_F16 = parse("f16")
_BLOCKS = frozenset({"dflash", "eagle3"})
"""draft models that are plain attention by their own metadata"""
_SHARING = frozenset({"gemma4-assistant"})
"""draft models that read their model's cache, and have none"""
_COMPRESSED = "hyper_connection"
"""in the metadata of a dflash whose cache is DeepSeek-V4's"""


@record
class Draft:
    """What is loaded beside a model. Without a geometry it has no cache of its own, or one that is unknown (`note`)."""

    weights: int
    """bytes; none for layers that are in the model's own file"""
    geometry: Geometry | None
    note: str

    def bytes_at(self, setting: Setting, table: Mapping[str, CacheType]) -> int:
        """Weights, cache and working memory, with the model's setting."""
        if self.geometry is None:
            return self.weights
        caches = sizes(self.geometry, _F16, setting, table)
        return self.weights + caches.bytes + working_bytes(self.geometry, setting, caches) - PROCESS_BYTES


def beside(header: ModelHeader) -> Draft:
    """The draft that is a file of its own. What is wrong with its metadata is in its note."""
    return _draft(header, header.tensor_bytes)


def within(header: ModelHeader) -> Draft | None:
    """The draft that a model makes with its further layers; None for a model that has none."""
    name = _architecture(header)
    has = header.metadata.get(f"{name}.nextn_predict_layers")
    return _draft(header, 0) if name in known.EXTRA_LAYERS and isinstance(has, int) and has > 0 else None


def _draft(header: ModelHeader, weights: int) -> Draft:
    name = _architecture(header)
    if name in _SHARING:
        return Draft(weights=weights, geometry=None, note="counted: the draft, which reads the model's own cache")
    try:
        found = _geometry(header, name)
    except (ArchitectureUnknown, ModelInvalid) as error:
        return Draft(
            weights=weights,
            geometry=None,
            note=f"not counted: the cache of the draft, which is unknown: {error.message}",
        )
    return Draft(weights=weights, geometry=found, note="counted: the draft, with an f16 cache of its own")


def _geometry(header: ModelHeader, name: str) -> Geometry:
    if name in _BLOCKS and not any(_COMPRESSED in key for key in header.metadata):
        return geometry.read(_renamed(header, name, "llama"))
    if name not in known.EXTRA_UNCACHED:
        return geometry.read(header)
    # the further layers at the end are dense attention, and the others have no cache in the draft's context
    whole = geometry.read(_renamed(header, name, "deepseek2" if name in known.MLA else "llama"))
    extra = header.metadata.get(f"{name}.nextn_predict_layers", 0)
    first = whole.layers - (extra if isinstance(extra, int) else 0)
    return replace(whole, cached=tuple(layer for layer in whole.cached if layer.index >= first))


def _renamed(header: ModelHeader, name: str, plain: str) -> ModelHeader:
    """The same sizes, as those of an architecture without windows, recurrent layers and indexers."""
    own = {f"{plain}.{key[len(name) + 1 :]}": value for key, value in header.metadata.items() if _of(key, name)}
    heads = own.get(f"{plain}.attention.head_count_kv")
    if isinstance(heads, tuple) and name in known.EXTRA_UNCACHED:  # 0 where a layer is recurrent
        own[f"{plain}.attention.head_count_kv"] = tuple(one or max(heads) for one in heads)
    rest = {key: value for key, value in header.metadata.items() if not _of(key, name)}
    return replace(header, metadata=rest | own | {"general.architecture": plain})


def _of(key: str, architecture: str) -> bool:
    return key.startswith(f"{architecture}.")


def _architecture(header: ModelHeader) -> str:
    return str(header.metadata.get("general.architecture", ""))
