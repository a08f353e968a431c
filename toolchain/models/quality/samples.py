"""Data to quantize: drawn from distributions similar to caches, or dumped from a model; and the rotation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...build.quantizers import Floats
from ...core.errors import ChecksumMismatch, ConfigError
from ...core.records import sha256_bytes

TEXT = Path(__file__).with_name("text.txt")
"""the default text. It never changes, so that results stay comparable"""
TEXT_SHA256 = "bde8ea807b378c0384bba4ae59a3ea54a0403d430225b70bc2f7d5d5937350e6"
OUTLIER_CHANNELS = 4
OUTLIER_FACTOR = 10.0
OFFSET_DEVIATION = 2.0
SMALLEST_ROTATION = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Numbers to quantize.

    `values` has the shape (tokens, heads, head size), like one layer of a cache. `rotation` is the size of the
    Hadamard transform that precedes quantization. `keys` says whether attention scores over it are meaningful.
    """

    name: str
    values: Floats
    rotation: int
    keys: bool = True

    def rotated(self) -> Floats:
        """`values` after the transform of each head. Raises `ConfigError` for an unsupported head size."""
        return rotate(self.values, self.rotation)


def rotation_size(head_size: int) -> int:
    """Size of the transform of a key: the largest power of two that divides the head size.

    Raises `ConfigError` for a head size that is not a multiple of 64: llama.cpp does not rotate such a cache.
    """
    if head_size < SMALLEST_ROTATION or head_size % SMALLEST_ROTATION:
        raise ConfigError(
            f"heads of {head_size} are not rotated, and no turbo type supports them",
            hint=f"use a multiple of {SMALLEST_ROTATION}",
        )
    return head_size & -head_size


def rotate(values: Floats, size: int) -> Floats:
    """Normalised Walsh-Hadamard transform (Sylvester's order) of each run of `size` values; it is its own inverse."""
    runs = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, size)
    return (runs @ hadamard(size)).reshape(values.shape)


def hadamard(size: int) -> Floats:
    """The orthogonal symmetric matrix (size, size) of entries +-1/sqrt(size); `size` is a power of two."""
    matrix = np.ones((1, 1), dtype=np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.float32(np.sqrt(size)), dtype=np.float32)


def _gaussian(rng: np.random.Generator, tokens: int, width: int) -> Floats:
    return rng.standard_normal((tokens, width), dtype=np.float32)


def _student(degrees: int) -> Callable[[np.random.Generator, int, int], Floats]:
    def draw(rng: np.random.Generator, tokens: int, width: int) -> Floats:
        return rng.standard_t(degrees, (tokens, width)).astype(np.float32)

    return draw


def _outlier(rng: np.random.Generator, tokens: int, width: int) -> Floats:
    values = _gaussian(rng, tokens, width)
    values[:, rng.choice(width, OUTLIER_CHANNELS, replace=False)] *= np.float32(OUTLIER_FACTOR)
    return values


def _offset(rng: np.random.Generator, tokens: int, width: int) -> Floats:
    return _gaussian(rng, tokens, width) + np.float32(OFFSET_DEVIATION) * _gaussian(rng, 1, width)


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int, int], Floats]] = {
    "gaussian": _gaussian,
    "student3": _student(3),
    "student5": _student(5),
    "outlier": _outlier,
    "offset": _offset,
}
"""N(0,1); Student's t with 3 and 5 degrees of freedom; N(0,1) with four channels ten times as large; N(0,1) with a
constant added to each channel, itself drawn from N(0,4)."""


def draw(name: str, *, tokens: int, head_size: int, seed: int) -> Sample:
    """A sample of one head; the same arguments give the same numbers. Raises `ConfigError` for an unknown name."""
    if name not in DISTRIBUTIONS:
        raise ConfigError(f"unknown data set {name!r}", hint=f"{', '.join(DISTRIBUTIONS)}, or dump with --model")
    rotation = rotation_size(head_size)
    values = DISTRIBUTIONS[name](np.random.default_rng(seed), tokens, head_size)
    return Sample(name=name, values=values.reshape(tokens, 1, head_size), rotation=rotation)


def read_text(path: str) -> str:
    """A file for a model to read; `TEXT` for an empty path.

    Raises `ConfigError` when it cannot be read, and `ChecksumMismatch` when `TEXT` was changed.
    """
    try:
        data = (Path(path).expanduser() if path else TEXT).read_bytes()
        if not path and sha256_bytes(data) != TEXT_SHA256:
            raise ChecksumMismatch(
                f"{TEXT}: was changed, so results on it would not be comparable", hint="restore the file with git"
            )
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--text {path}: cannot be read: {error}", hint="a text file in UTF-8") from error
