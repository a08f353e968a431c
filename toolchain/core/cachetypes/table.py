"""The only table of cache types: upstream's are listed here, ours in `types` of patches/series.yaml.

Every other list of types (defaults, pairs to test, candidates of a proposal) is derived from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import msgspec
import yaml

from ..checkout import PATCHES
from ..documents import MOST_BYTES, parse_yaml
from ..errors import SeriesError
from ..records import read_bytes, record


@record
class CacheType:
    """A type of the KV cache: `block` values take `bytes` bytes."""

    name: str
    block: int
    bytes: int
    db: float | None = None
    """SNR in dB on rotated keys, which are close to Gaussian (`./inv quality`); None: unknown"""

    @property
    def quantized(self) -> bool:
        """Whether values share a block. llama.cpp rotates the cache of such types only."""
        return self.block > 1


UPSTREAM = tuple(
    CacheType(name=name, block=block, bytes=size, db=db)
    for name, block, size, db in (
        ("f32", 1, 4, 150.0),
        ("f16", 1, 2, 73.7),
        ("bf16", 1, 2, 55.6),
        ("q8_0", 32, 34, 45.4),
        ("q5_1", 32, 24, 28.4),
        ("q5_0", 32, 22, 27.4),
        ("q4_1", 32, 20, 22.1),
        ("q4_0", 32, 18, 21.3),
        ("iq4_nl", 32, 18, 22.1),
    )
)
"""llama.cpp's own cache types"""
BESIDE = ("q8_0", "q4_0", "f16", "bf16")
"""upstream's types that our Metal kernels support beside one of ours, for K or V"""


class _Head(msgspec.Struct, frozen=True):
    types: tuple[CacheType, ...]
    averages: dict[str, str] = {}


def own(root: Path = PATCHES) -> tuple[CacheType, ...]:
    """The types that the series at `root` adds. Reads series.yaml alone; no seal is needed.

    The first is the default one. Raises `SeriesError`.
    """
    return _head(root).types


def averages(root: Path = PATCHES) -> dict[str, str]:
    """The setting that loses least at an average of bits per value, by the average ("4.25"), the smallest first.

    Raises `SeriesError`.
    """
    return _head(root).averages


def _head(root: Path) -> _Head:
    path = root / "series.yaml"
    if not path.is_file():
        raise SeriesError(f"{root}: there is no series.yaml", hint="series.path names the folder of a patch series")
    try:
        return _parsed(read_bytes(path, limit=MOST_BYTES).decode())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise SeriesError(f"{path}: {error}") from error


@cache
def _parsed(text: str) -> _Head:
    return msgspec.convert(parse_yaml(text), _Head)


def type_table(added: Iterable[CacheType]) -> dict[str, CacheType]:
    """Every cache type of a release by name: upstream's and those `added` by the series."""
    return {kind.name: kind for kind in (*UPSTREAM, *added)}


def nominal(kinds: Iterable[CacheType]) -> dict[str, float]:
    """SNR in dB by name, for the types that state it."""
    return {kind.name: kind.db for kind in kinds if kind.db is not None}


def bits_per_value(kind: CacheType) -> float:
    """Size of one cached value in bits."""
    return kind.bytes * 8 / kind.block


def row_bytes(kind: CacheType, values: int) -> int:
    """Bytes of a row of `values`, a multiple of the type's block."""
    return values // kind.block * kind.bytes


def standard(added: Sequence[CacheType]) -> str:
    """The service's default type: the first that is `added`."""
    return added[0].name if added else "f16"


def finer_keys(added: Sequence[CacheType]) -> tuple[str, ...]:
    """The default type for V with finer keys, which lose more than values: of q8_0, and of the finest type `added`."""
    if not added:
        return ()
    finest = max(added, key=bits_per_value)
    keys = ["q8_0", *([finest.name] if bits_per_value(finest) > bits_per_value(added[0]) else [])]
    return tuple(f"{name}:{standard(added)}" for name in keys)


def proven_types(added: Sequence[CacheType]) -> tuple[str, ...]:
    """The types that verification runs by default: each one `added`, the default one with finer keys, and the smallest
    for V with finer first and last layers."""
    if not added:
        return ("f16",)
    smallest = min(added, key=bits_per_value)
    names = [kind.name for kind in added]
    return (*names, *finer_keys(added), f"q8_0:{smallest.name},first=2:q8_0,last=2:q8_0")
