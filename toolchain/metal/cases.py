"""What `metal.run` runs: every kernel of the cache types, once for each way in which a cache uses it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .attention import Attention
from .formats import Bytes, Floats, Format
from .host import Operation, Tensor

Array = npt.NDArray[Any]
SIZES = ((64, 64), (128, 128), (192, 128), (192, 192), (256, 256), (320, 256), (512, 512), (576, 512))
"""head sizes of K and V that upstream's attention serves and a block of 64 fits"""
PAIRS = (
    ("turbo4", "turbo4"), ("turbo3", "turbo3"), ("turbo2", "turbo2"), ("q8_0", "turbo4"), ("f16", "turbo3"),
    ("q8_0", "turbo2"), ("turbo4", "turbo3"),
)  # fmt: skip
FOREIGN = ("f16", "q8_0", "q4_0")
"""upstream's own types, whose kernels show whether harness and reference are to be believed"""
_WIDTH = 192


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A row operation of one type: its operands, and the bytes that the result must have, where it must have any."""

    type: str
    operation: Operation
    operands: tuple[Bytes, ...]
    expected: Bytes
    written: Bytes
    """mask over `expected`: 1 where the operation writes"""


def conversions(kind: Format) -> Iterator[Conversion]:
    """Rows and copies of a type, both ways, on values that try the encoder."""
    values = awkward(kind.name)
    rows, count = kind.encode(values).reshape(len(values), -1), len(values)
    stored = _tensor(kind.name, (_WIDTH, count), (kind.bytes, rows.shape[1]))
    floats = _tensor("f32", (_WIDTH, count), (4, 4 * _WIDTH))
    decoded = kind.decode(rows.reshape(-1)).reshape(count, _WIDTH)
    source = _flat(values)

    picks = np.array([3, 15, count - 1, 3], np.int32)
    yield _conversion(
        kind, "GET_ROWS", _tensor("f32", (_WIDTH, len(picks)), (4, 4 * _WIDTH)),
        [(stored, rows), (_tensor("i32", (len(picks),), (4,)), picks)], decoded[picks],
    )  # fmt: skip
    for dtype, name in ((np.float32, "f32"), (np.float16, "f16")):
        size = np.dtype(dtype).itemsize
        result = _tensor(name, (_WIDTH, count), (size, size * _WIDTH))
        with np.errstate(over="ignore"):
            yield _conversion(kind, "CPY", result, [(stored, rows)], decoded.astype(dtype))
    yield _conversion(kind, "CPY", stored, [(floats, source)], rows)
    places = np.random.default_rng(1).permutation(count + 3)[:count]
    for index, name in ((np.int64, "i64"), (np.int32, "i32")):
        size = np.dtype(index).itemsize
        expected = np.zeros((count + 3, rows.shape[1]), np.uint8)
        written = np.zeros_like(expected)
        expected[places], written[places] = rows, 1
        yield _conversion(
            kind, "SET_ROWS", _tensor(kind.name, (_WIDTH, count + 3), (kind.bytes, rows.shape[1])),
            [(floats, source), (_tensor(name, (count,), (size,)), places.astype(index))], expected, written,
        )  # fmt: skip


def awkward(name: str) -> Floats:
    """Rows of values: Gaussian, heavy-tailed, zeros, infinities and no numbers, too small, too large, and some of
    nearly one magnitude, for which there is a second codebook."""
    rng = np.random.default_rng(sum(name.encode()))
    values = rng.standard_normal((18, _WIDTH)).astype(np.float32)
    values[4] = rng.standard_t(2, _WIDTH)
    values[5] = rng.standard_cauchy(_WIDTH)
    values[6, :64], values[6, 64:128], values[6, 128:] = 0, np.nan, np.inf
    values[7, 5], values[7, 70] = -np.inf, np.nan
    values[8] *= 1e-6
    values[9] *= 1e7
    values[10, :64], values[10, 64:] = 1e-9, values[10, 64:] * 3e-4
    values[11] = 1
    values[12] = 2 * np.eye(1, _WIDTH, 77)
    values[13] = np.linspace(-1, 1, _WIDTH)
    values[14, ::2] *= 50
    values[15:17] = np.sign(values[15:17]) * (1 + 0.1 * values[15:17])
    return values


def attentions(full: bool = False) -> Iterator[Attention]:
    """Attention of one token and of 33 on every head size: all pairs on the common sizes, or on all with `full`; the
    other sizes take two of them in turn. What a model may add, and how many heads share one of the cache, go round."""
    number = 0
    for size, (dk, dv) in enumerate(SIZES):
        some = [PAIRS[size % len(PAIRS)], PAIRS[(size + 3) % len(PAIRS)]]
        for k, v in PAIRS if full or dk <= 128 else some:
            for queries in (1, 33):
                number += 1
                yield _attention(k, v, dk, dv, queries, number)


def unmasked() -> Iterator[Attention]:
    """Attention without a mask, which no cache asks for. Upstream's kernels divide by a size of the mask even then, so
    that the harness, other than a GPU, stops them."""
    for k, v in (("turbo4", "turbo4"), ("q8_0", "turbo2")):
        for queries in (1, 33):
            yield Attention(k=k, v=v, dk=64, dv=64, queries=queries, mask=False, seed=3)


def foreign() -> Iterator[Attention]:
    """Attention over caches of upstream's own types."""
    for number, kind in enumerate(FOREIGN):
        for size in (64, 128):
            for queries in (1, 33):
                yield _attention(kind, kind, size, size, queries, number)


def _attention(k: str, v: str, dk: int, dv: int, queries: int, number: int) -> Attention:
    kv_heads, group = ((1, 1), (2, 2), (1, 4), (1, 8), (1, 16), (2, 3))[number % 6]
    return Attention(
        k=k, v=v, dk=dk, dv=dv, queries=queries, kv_heads=kv_heads, heads=kv_heads * min(group, 16 if dk <= 128 else 4),
        positions=(45, 130, 33, 77)[number % 4], sinks=number % 3 == 0,
        max_bias=8.0 if number % 4 == 1 else 0.0, softcap=20.0 if number % 4 == 2 else 0.0,
        seed=number,
    )  # fmt: skip


def _conversion(
    kind: Format,
    name: str,
    result: Tensor,
    operands: list[tuple[Tensor, Array]],
    expected: Array,
    written: Bytes | None = None,
) -> Conversion:
    wanted = _flat(expected)
    return Conversion(
        type=kind.name,
        operation=Operation(name=name, result=result, operands=tuple(tensor for tensor, _ in operands)),
        operands=tuple(_flat(array) for _, array in operands),
        expected=wanted,
        written=np.ones_like(wanted) if written is None else _flat(written),
    )


def _tensor(kind: str, ne: tuple[int, ...], nb: tuple[int, ...]) -> Tensor:
    return Tensor(type=kind, ne=ne, nb=nb)


def _flat(array: Array) -> Bytes:
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1)
