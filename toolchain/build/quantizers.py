"""The series' reference quantizers: the same C files as in a release, compiled alone and called through ctypes."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..core.config import Config
from ..core.errors import BuildFailed
from ..core.process import run
from ..core.records import sha256_bytes
from ..series.manifest import Series
from ..stages import CacheType
from .tools import compilers

Bytes: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.float32]

# These are plain C without ggml; files of a backend need ggml.
_SOURCE = "kernels/ggml-turbo.c"
_FLAGS = ("-std=c11", "-O3", "-fPIC", "-shared", "-DGGML_TURBO_STANDALONE")


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """Encoder and decoder of one type, for flat rows that are a whole number of blocks."""

    kind: CacheType
    _encode: Any = field(repr=False)
    _decode: Any = field(repr=False)

    def encode(self, values: Floats) -> Bytes:
        """The blocks of `values`."""
        values = np.ascontiguousarray(values, dtype=np.float32)
        blocks = np.zeros(values.size // self.kind.block * self.kind.bytes, np.uint8)
        self._encode(values.ctypes.data, blocks.ctypes.data, values.size)
        return blocks

    def decode(self, blocks: Bytes) -> Floats:
        """The values of `blocks`."""
        blocks = np.ascontiguousarray(blocks)
        values = np.zeros(blocks.size // self.kind.bytes * self.kind.block, np.float32)
        self._decode(blocks.ctypes.data, values.ctypes.data, values.size)
        return values


def load(series: Series, config: Config, workspace: Path) -> tuple[Quantizer, ...]:
    """A quantizer for each type of the series, in its order. Raises as `compile_library`."""
    library = ctypes.CDLL(str(compile_library(series, config, workspace)))
    return tuple(_bound(library, kind) for kind in series.types)


def compile_library(series: Series, config: Config, workspace: Path) -> Path:
    """Path of the shared library.

    It is compiled into `workspace` with the compiler of a build, and cached until the sources or the compiler change.
    Raises `MissingTool` without a compiler and `BuildFailed` when it refuses the sources.
    """
    cc = compilers(config.build, workspace)[1].require()
    key = sha256_bytes("\n".join([series.sha256, cc.path, cc.version, *_FLAGS]).encode())[:16]
    library = workspace / "quality" / "kernels" / f"libturbo-{key}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    made = library.with_name(f".{library.name}.{os.getpid()}")
    try:
        argv = [cc.path, *_FLAGS, str(series.root / _SOURCE), "-lm", "-o", str(made)]
        run(argv, failure=BuildFailed, what="compiling the kernels")
        made.replace(library)
    finally:
        made.unlink(missing_ok=True)
    return library


def _bound(library: ctypes.CDLL, kind: CacheType) -> Quantizer:
    try:
        encode = getattr(library, f"ggml_{kind.name}_quantize_row")
        decode = getattr(library, f"ggml_{kind.name}_dequantize_row")
    except AttributeError as error:
        raise BuildFailed(f"{_SOURCE} has no quantizer of {kind.name}: {error}") from error
    for function in (encode, decode):
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        function.restype = None
    return Quantizer(kind=kind, _encode=encode, _decode=decode)
