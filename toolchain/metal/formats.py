"""Cache types as the cases of a run need them: random rows of a type, and what they decode to, in plain C or NumPy."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from ..build.quantizers import compile_library
from ..core.cachetypes.table import BESIDE, type_table
from ..core.config import Config
from ..series.manifest import Series

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A type: `block` values in `bytes` bytes, and the two ways between rows (flat) and floats."""

    name: str
    block: int
    bytes: int
    _library: ctypes.CDLL | None = field(default=None, repr=False)

    def row(self, values: int) -> int:
        """Bytes of a row of that many values."""
        return values // self.block * self.bytes

    def encode(self, values: Floats) -> Bytes:
        """Flat rows of the type, by the reference quantizer."""
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        if self._library is None:
            return gguf.quants.quantize(flat, _gguf_type(self.name)).view(np.uint8).reshape(-1)
        out = np.zeros(self.row(flat.size), np.uint8)
        self._call("quantize", flat.ctypes.data, out.ctypes.data, flat.size)
        return out

    def decode(self, rows: Bytes) -> Floats:
        """What flat rows stand for, flat."""
        if self._library is None:
            return np.asarray(gguf.quants.dequantize(rows, _gguf_type(self.name)), np.float32).reshape(-1)
        out = np.zeros(rows.size // self.bytes * self.block, np.float32)
        rows = np.ascontiguousarray(rows)
        self._call("dequantize", rows.ctypes.data, out.ctypes.data, out.size)
        return out

    def _call(self, verb: str, source: int, target: int, count: int) -> None:
        function = getattr(self._library, f"ggml_{self.name}_{verb}_row")
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        function.restype = None
        function(source, target, count)


def formats(series: Series, config: Config, workspace: Path) -> dict[str, Format]:
    """The series' types by the C that a build gets, and the upstream types that stand beside them in a cache."""
    library = ctypes.CDLL(str(compile_library(series, config, workspace)))
    own = {
        kind.name: Format(name=kind.name, block=kind.block, bytes=kind.bytes, _library=library) for kind in series.types
    }
    upstream = [kind for kind in type_table(()).values() if kind.name in BESIDE]
    return own | {kind.name: Format(name=kind.name, block=kind.block, bytes=kind.bytes) for kind in upstream}


def _gguf_type(name: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[name.upper()]
