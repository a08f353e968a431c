"""The cases of `metal.run`: every kernel of the cache types, in each way that a cache uses it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..build.quantizers import Bytes, Floats
from ..core.cachetypes.table import BESIDE
from .attention import Attention
from .formats import Format
from .host import Operation, Tensor

Array = npt.NDArray[Any]
SIZES = ((64, 64), (128, 128), (192, 128), (192, 192), (256, 256), (320, 256), (512, 512), (576, 512))
"""head sizes of K and V that upstream's attention supports and that are multiples of 64"""
FOREIGN = ("f16", "q8_0", "q4_0")
"""upstream's own types, whose kernels validate harness and reference"""
_WIDTH = 192


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A row operation of one type: its operands, and the expected bytes of the result, if any."""

    type: str
    operation: Operation
    operands: tuple[Bytes, ...]
    expected: Bytes
    written: Bytes
    """mask over `expected`: 1 where the operation writes"""


def conversions(kind: Format) -> Iterator[Conversion]:
    """Rows and copies of a type, both ways, on difficult values."""
    values = awkward(kind.name)
    rows, count = kind.encode(values).reshape(len(values), -1), len(values)
    stored = _tensor(kind.name, (_WIDTH, count), (kind.bytes, rows.shape[1]))
    floats = _tensor("f32", (_WIDTH, count), (4, 4 * _WIDTH))
    decoded = kind.decode(rows.reshape(-1)).reshape(count, _WIDTH)
    source = _flat(values)

    picks = np.array([3, 15, count - 1, 3], np.int32)
    yield _conversion(
        kind.name, "GET_ROWS", _tensor("f32", (_WIDTH, len(picks)), (4, 4 * _WIDTH)),
        [(stored, rows), (_tensor("i32", (len(picks),), (4,)), picks)], decoded[picks],
    )  # fmt: skip
    for dtype, name in ((np.float32, "f32"), (np.float16, "f16")):
        size = np.dtype(dtype).itemsize
        result = _tensor(name, (_WIDTH, count), (size, size * _WIDTH))
        with np.errstate(over="ignore"):
            yield _conversion(kind.name, "CPY", result, [(stored, rows)], decoded.astype(dtype))
    yield _conversion(kind.name, "CPY", stored, [(floats, source)], rows)
    places = np.random.default_rng(1).permutation(count + 3)[:count]
    for index, name in ((np.int64, "i64"), (np.int32, "i32")):
        size = np.dtype(index).itemsize
        expected = np.zeros((count + 3, rows.shape[1]), np.uint8)
        written = np.zeros_like(expected)
        expected[places], written[places] = rows, 1
        yield _conversion(
            kind.name, "SET_ROWS", _tensor(kind.name, (_WIDTH, count + 3), (kind.bytes, rows.shape[1])),
            [(floats, source), (_tensor(name, (count,), (size,)), places.astype(index))], expected, written,
        )  # fmt: skip


def calibrations() -> Iterator[Conversion]:
    """What a graph does with calibrated keys, by operations of upstream's own: constants off and on again, keys and
    queries scaled. Each operation is as llama-kv-calibration.cpp poses it: a value for each channel of each KV head,
    for all tokens; queries with the heads of a group beside each other."""
    rng = np.random.default_rng(2)
    for size, heads, group in ((64, 3, 3), (128, 8, 4), (256, 1, 4)):
        keys, queries = (5, heads, size), (5, heads, group, size)
        asked = (("SUB", np.subtract, keys, keys[1:]), ("ADD", np.add, keys, keys[1:]),
                 ("MUL", np.multiply, keys, keys[1:]), ("MUL", np.multiply, queries, (heads, 1, size)))  # fmt: skip
        for name, calculate, of, by in asked:
            values, fitted = (rng.standard_normal(shape).astype(np.float32) for shape in (of, by))
            operands = [(_dense(values), values), (_dense(fitted), fitted)]
            yield _conversion("f32", name, _dense(values), operands, calculate(values, fitted))


def awkward(name: str) -> Floats:
    """Rows of values: Gaussian, heavy-tailed, zeros, infinities and NaN, too small, too large, and some of
    nearly equal magnitude, for which there is a second codebook."""
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


def usual(own: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Common pairs with our types: each for K and V, each with upstream's keys, and the first two together."""
    beside = [(("q8_0", "f16")[number % 2], name) for number, name in enumerate(own)]
    return (*((name, name) for name in own), *beside, *itertools.pairwise(own[:2]))


def pairs(own: Sequence[str]) -> Iterator[tuple[str, str]]:
    """All pairs of types with at least one of our `own`."""
    for k in (*own, *BESIDE):
        for v in (*own, *BESIDE):
            if k in own or v in own:
                yield k, v


def attentions(own: Sequence[str], full: bool = False) -> Iterator[Attention]:
    """Attention over our `own` types for every head size, with one token and with many, two pairs of types in turn
    (with `full`, all that people use); for every pair of types, at head size 64 (with `full`, also 128), in one of the
    kernels in turn (with `full`, in both); and for what is rare. What a model may add, and how many heads share one of
    the cache, go round.
    """
    number, people = 0, usual(own)
    for size, (dk, dv) in enumerate(SIZES):
        some = [people[size % len(people)], people[(size + 3) % len(people)]]
        for k, v in people if full else some:
            for queries in (1, 33):
                number += 1
                yield _attention(k, v, dk, dv, queries, number)
    for at, (k, v) in enumerate(pairs(own)):
        for dk in (64, 128) if full else (64,):
            for queries in (1, 33) if full else ((1, 33)[at % 2],):
                number += 1
                yield _attention(k, v, dk, dk, queries, number)
    yield from rare(own)


def rare(own: Sequence[str]) -> Iterator[Attention]:
    """Many heads on one of the cache, any number of queries, several sequences, V that lies in K, no mask, and
    positions enough to be divided over threadgroups. Uses our first three types."""
    first, second, third = itertools.islice(itertools.cycle(own), 3)
    for queries in (1, 2, 5, 17, 40):
        yield Attention(k=first, v=second, dk=64, dv=64, heads=40, queries=queries, positions=70, seed=queries)
    for queries in (3, 9):
        yield Attention(k="q8_0", v=first, dk=128, dv=128, heads=8, kv_heads=2, queries=queries, sequences=3,
                        positions=37, seed=queries)  # fmt: skip
        yield Attention(k=first, v=first, dk=576, dv=512, heads=4 * queries, v_in_k=True, positions=50,
                        seed=queries)  # fmt: skip
        yield Attention(k=first, v=third, dk=64, dv=64, heads=queries, positions=600, sinks=True, seed=queries)
        yield Attention(k="q8_0", v=third, dk=64, dv=64, heads=queries, mask=False, seed=queries)
    yield Attention(k=second, v=second, dk=64, dv=64, heads=20, positions=600, seed=3)
    yield Attention(k=first, v=first, dk=128, dv=128, heads=12, positions=50, seed=4)
    yield Attention(k=first, v="q8_0", dk=128, dv=128, heads=10, queries=29, positions=40, seed=5)


def foreign() -> Iterator[Attention]:
    """Attention over caches of upstream's own types, also where it switches kernels: from 20 queries on, and from 32
    on."""
    for number, kind in enumerate(FOREIGN):
        for size in (64, 128):
            for queries in (1, 31, 33):
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
    kind: str,
    name: str,
    result: Tensor,
    operands: list[tuple[Tensor, Array]],
    expected: Array,
    written: Bytes | None = None,
) -> Conversion:
    wanted = _flat(expected)
    return Conversion(
        type=kind,
        operation=Operation(name=name, result=result, operands=tuple(tensor for tensor, _ in operands)),
        operands=tuple(_flat(array) for _, array in operands),
        expected=wanted,
        written=np.ones_like(wanted) if written is None else _flat(written),
    )


def _tensor(kind: str, ne: tuple[int, ...], nb: tuple[int, ...]) -> Tensor:
    return Tensor(type=kind, ne=ne, nb=nb)


def _dense(values: Floats) -> Tensor:
    """Of floats that follow each other; ggml's first dimension is numpy's last."""
    return _tensor("f32", values.shape[::-1], values.strides[::-1])


def _flat(array: Array) -> Bytes:
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1)
