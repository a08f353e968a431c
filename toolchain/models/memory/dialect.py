"""What differs between versions of GGUF files: tensor types by their numbers, and names of architectures.

The gguf package knows the types of its own release. `pinned` reads those of a llama.cpp tree, and the names that an
Ollama tree's compat layer translates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import gguf

from ...core.records import record

REMOVED = frozenset({4, 5, 31, 32, 33, 36, 37, 38})
"""numbers of types that llama.cpp dropped from files (ggml.h); a fork may have given them to types of its own"""


@record
class TensorType:
    """A type of weights: `block` values take `bytes` bytes."""

    name: str
    block: int
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a header is understood."""

    types: Mapping[int, TensorType]
    """by the number in the file"""
    renames: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """architectures that an Ollama tree reads as another of llama.cpp, beyond those that `ollama_compat` knows"""
    source: str = ""
    """where it was read, for messages; empty without a tree"""


def _packaged() -> dict[int, TensorType]:
    return {
        int(kind): TensorType(name=kind.name, block=block, bytes=size)
        for kind, (block, size) in gguf.GGML_QUANT_SIZES.items()
    }


_SINCE = {42: TensorType(name="Q2_0", block=64, bytes=18)}
"""types of llama.cpp b10488 that are not in every release of the gguf package"""
BUILT_IN = Dialect(types=_SINCE | _packaged())
