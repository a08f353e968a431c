"""Cases of flash attention: their operands, and the result in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..build.quantizers import Bytes
from .formats import Format
from .host import Operation, Tensor

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Attention:
    """One case. Keys of head size `dk` and values of `dv`, `kv_heads` of them, shared by `heads` of the queries.

    `queries` are the tokens of a batch in each of `sequences`; the mask is causal over the last of `positions`, with
    holes. `max_bias` is ALiBi's, `softcap` bounds the scores; 0 turns either off. `v_in_k` has no V of its own: it is
    the first part of every row of K, as in a cache of MLA.
    """

    k: str
    v: str
    dk: int
    dv: int
    heads: int = 2
    kv_heads: int = 1
    positions: int = 45
    queries: int = 1
    sequences: int = 1
    mask: bool = True
    sinks: bool = False
    max_bias: float = 0.0
    softcap: float = 0.0
    v_in_k: bool = False
    seed: int = 1

    @property
    def scale(self) -> float:
        return 1.0 / math.sqrt(self.dk)


@dataclass(frozen=True, kw_only=True)
class PosedAttention:
    """A case as an operation with its operands' bytes, and the expected result: (sequences * queries, heads, dv)."""

    operation: Operation
    operands: tuple[Bytes | None, ...]
    expected: Doubles


def pose(case: Attention, formats: dict[str, Format]) -> PosedAttention:
    """Random operands of a case, laid out like a cache: all heads of a position side by side."""
    rng = np.random.default_rng([case.seed, case.dk, case.dv, case.heads, case.positions, case.queries])
    rows = case.sequences * case.positions
    q = rng.standard_normal((case.sequences, case.queries, case.heads, case.dk)).astype(np.float32)
    k, k_tensor = _cache(rng, formats[case.k], case, case.dk)
    v, v_tensor = _cache(rng, formats[case.v], case, case.dv)
    decoded_k = formats[case.k].decode(k).reshape(rows, case.kv_heads, case.dk)
    decoded_v = formats[case.v].decode(v).reshape(rows, case.kv_heads, case.dv)
    if case.v_in_k:
        decoded_v = decoded_k[:, :, : case.dv]
        v_tensor = replace(k_tensor, ne=(case.dv, *k_tensor.ne[1:]), view_of=2)
    mask = _mask(rng, case)
    sinks = rng.standard_normal(case.heads).astype(np.float32)
    size = 4 * case.dk * case.heads
    operands = [
        Tensor(
            type="f32",
            ne=(case.dk, case.queries, case.heads, case.sequences),
            nb=(4, size, 4 * case.dk, size * case.queries),
        ),
        k_tensor,
        v_tensor,
        _flat("f16", (case.positions, case.queries, 1, case.sequences), 2) if case.mask else None,
        _flat("f32", (case.heads,), 4) if case.sinks else None,
    ]
    words = np.array([case.scale, case.max_bias, case.softcap], np.float32).view(np.int32)
    return PosedAttention(
        operation=Operation(
            name="FLASH_ATTN_EXT",
            result=_flat("f32", (case.dv, case.heads, case.queries, case.sequences), 4),
            operands=tuple(operands),
            parameters=tuple(int(word) for word in words),
        ),
        operands=(
            _bytes(q), k, None if case.v_in_k else v, _bytes(mask) if case.mask else None,
            _bytes(sinks) if case.sinks else None,
        ),
        expected=np.concatenate(
            [
                reference(case, q[at], one_k, one_v, mask[at], sinks)
                for at, (one_k, one_v) in enumerate(
                    zip(np.split(decoded_k, case.sequences), np.split(decoded_v, case.sequences), strict=True)
                )
            ]
        ),
    )  # fmt: skip


def reference(
    case: Attention,
    q: npt.NDArray[np.float32],
    k: npt.NDArray[np.float32],
    v: npt.NDArray[np.float32],
    mask: npt.NDArray[np.float16],
    sinks: npt.NDArray[np.float32],
) -> Doubles:
    """Softmax of the scores times the values, by definition, of one sequence."""
    group = case.heads // case.kv_heads
    scores = np.einsum("qhd,phd->hqp", q.astype(np.float64), np.repeat(k, group, axis=1)) * case.scale
    if case.softcap:
        scores = case.softcap * np.tanh(scores / case.softcap)
    if case.mask:
        scores = scores + slopes(case)[:, None, None] * mask.astype(np.float64)
    top = scores.max(axis=2, keepdims=True)
    if case.sinks:
        top = np.maximum(top, sinks[:, None, None])
    weights = np.exp(scores - top)
    total = weights.sum(axis=2, keepdims=True)
    if case.sinks:
        total = total + np.exp(sinks[:, None, None] - top)
    result = np.einsum("hqp,phd->qhd", weights / total, np.repeat(v, group, axis=1).astype(np.float64))
    return np.asarray(result, np.float64)


def slopes(case: Attention) -> Doubles:
    """ALiBi's slope of every head (Press et al. 2022): powers of 2^(-max_bias / n), and for heads beyond the power of
    two n every second one of a series twice as fine."""
    power = 1 << int(math.log2(case.heads))
    head = np.arange(case.heads)
    exponent = np.where(head < power, head + 1, (2 * (head - power) + 1) / 2)
    return np.asarray(2.0 ** (-case.max_bias / power * exponent), np.float64)


def _mask(rng: np.random.Generator, case: Attention) -> npt.NDArray[np.float16]:
    """(sequences, queries, positions): -infinity for hidden positions, ALiBi's distance if requested."""
    mask = np.zeros((case.sequences, case.queries, case.positions), np.float16)
    if case.mask:
        token = case.positions - case.queries + np.arange(case.queries)[:, None]
        distance = token - np.arange(case.positions)[None, :]
        mask[:] = np.where(distance < 0, -np.inf, -distance if case.max_bias else 0).astype(np.float16)
        for one in mask:
            one[:, rng.random(case.positions) < 0.1] = -np.inf
            one[np.arange(case.queries), np.maximum(token[:, 0], 0)] = 0
    return mask


def _cache(rng: np.random.Generator, kind: Format, case: Attention, width: int) -> tuple[Bytes, Tensor]:
    heads, head = case.kv_heads, kind.row(width)
    rows = kind.encode(rng.standard_normal(case.sequences * case.positions * heads * width).astype(np.float32))
    return rows, Tensor(
        type=kind.name,
        ne=(width, case.positions, heads, case.sequences),
        nb=(kind.bytes, heads * head, head, heads * head * case.positions),
    )


def _flat(kind: str, ne: tuple[int, ...], size: int) -> Tensor:
    nb = [size]
    for n in ne:
        nb.append(nb[-1] * n)
    return Tensor(type=kind, ne=ne, nb=tuple(nb[: len(ne)]))


def _bytes(array: npt.NDArray[np.float16] | npt.NDArray[np.float32]) -> Bytes:
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1)
