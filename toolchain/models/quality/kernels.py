"""The series' own types as the benchmark measures them."""

from __future__ import annotations

from pathlib import Path

from ...build import quantizers
from ...build.quantizers import Floats
from ...core.config import Config
from ...series.manifest import Series
from .codec import Codec


def load(series: Series, config: Config, workspace: Path) -> tuple[Codec, ...]:
    """A codec for each type of the series, in its order. Raises as `quantizers.load`."""
    return tuple(_codec(found) for found in quantizers.load(series, config, workspace))


def _codec(found: quantizers.Quantizer) -> Codec:
    def round_trip(values: Floats) -> Floats:
        return found.decode(found.encode(values))

    return Codec(name=found.kind.name, block=found.kind.block, bytes=found.kind.bytes, round_trip=round_trip)
