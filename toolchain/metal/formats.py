"""Cache types for the cases of a run: random rows of a type and their decoded values, in plain C or NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np

from ..build import quantizers
from ..build.quantizers import Bytes, Floats, Quantizer
from ..core.cachetypes.table import BESIDE, type_table
from ..core.config import Config
from ..series.manifest import Series


@dataclass(frozen=True, kw_only=True)
class Format:
    """A type: `block` values in `bytes` bytes, with encoder and decoder for flat rows."""

    name: str
    block: int
    bytes: int
    _quantizer: Quantizer | None = field(default=None, repr=False)

    def row(self, values: int) -> int:
        """Bytes of a row of that many values."""
        return values // self.block * self.bytes

    def encode(self, values: Floats) -> Bytes:
        """Flat rows of the type, by the reference quantizer."""
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        if self._quantizer is None:
            return gguf.quants.quantize(flat, _gguf_type(self.name)).view(np.uint8).reshape(-1)
        return self._quantizer.encode(flat)

    def decode(self, rows: Bytes) -> Floats:
        """The decoded values of flat rows, flat."""
        if self._quantizer is None:
            return np.asarray(gguf.quants.dequantize(rows, _gguf_type(self.name)), np.float32).reshape(-1)
        return self._quantizer.decode(rows)


def formats(series: Series, config: Config, workspace: Path) -> dict[str, Format]:
    """The series' types, from a build's C code, and the upstream types that are combined with them in a cache."""
    own = {
        found.kind.name: Format(name=found.kind.name, block=found.kind.block, bytes=found.kind.bytes, _quantizer=found)
        for found in quantizers.load(series, config, workspace)
    }
    upstream = [kind for kind in type_table(()).values() if kind.name in BESIDE]
    return own | {kind.name: Format(name=kind.name, block=kind.block, bytes=kind.bytes) for kind in upstream}


def _gguf_type(name: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[name.upper()]
