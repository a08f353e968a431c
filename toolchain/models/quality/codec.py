"""What the benchmark measures: a block format that encodes numbers as bytes, and decodes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ...build.quantizers import Floats
from ...core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codec:
    """A cache type: `block` values take `bytes` bytes.

    `round_trip` quantizes a flat float32 array, a whole number of blocks, and returns the decoded values.
    """

    name: str
    block: int
    bytes: int
    round_trip: Callable[[Floats], Floats]

    @property
    def bits_per_value(self) -> float:
        """Bits that one value takes, scales included."""
        return 8 * self.bytes / self.block

    def restore(self, values: Floats) -> Floats:
        """`values` (rows, ...) after a round trip, each row quantized separately, like one row of a cache.

        Raises `ConfigError` when a row is not a whole number of blocks.
        """
        width = values.size // len(values)
        if width % self.block:
            raise ConfigError(
                f"{self.name} has blocks of {self.block}, which do not fill rows of {width}",
                hint="select the types with --type",
            )
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        return self.round_trip(flat).reshape(values.shape)
