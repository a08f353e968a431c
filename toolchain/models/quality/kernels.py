"""The series' own quantizers, compiled from the C files that a build gets, and called through ctypes."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from ...build.quantizers import SOURCE, compile_library
from ...core.config import Config
from ...core.errors import BuildFailed
from ...series.manifest import Series
from ...stages import CacheType
from .codec import Codec, Floats


def load(series: Series, config: Config, workspace: Path) -> tuple[Codec, ...]:
    """A codec for each type of the series, in its order.

    The library is compiled into `workspace` with the compiler of a build, and cached until the sources or the
    compiler change. Raises `MissingTool` without a compiler and `BuildFailed` when it refuses the sources.
    """
    library = ctypes.CDLL(str(compile_library(series, config, workspace)))
    return tuple(_codec(library, kind) for kind in series.types)


def _codec(library: ctypes.CDLL, kind: CacheType) -> Codec:
    try:
        quantize = getattr(library, f"ggml_{kind.name}_quantize_row")
        dequantize = getattr(library, f"ggml_{kind.name}_dequantize_row")
    except AttributeError as error:
        raise BuildFailed(f"{SOURCE} has no quantizer of {kind.name}: {error}") from error
    for function in (quantize, dequantize):
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        function.restype = None

    def round_trip(values: Floats) -> Floats:
        blocks = np.zeros(values.size // kind.block * kind.bytes, dtype=np.uint8)
        restored = np.empty_like(values)
        quantize(values.ctypes.data, blocks.ctypes.data, values.size)
        dequantize(blocks.ctypes.data, restored.ctypes.data, values.size)
        return restored

    return Codec(name=kind.name, block=kind.block, bytes=kind.bytes, round_trip=round_trip)
