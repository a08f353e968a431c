"""The arithmetic of `bench.keys`: what a head's keys are made of, and what attention feels of their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from toolchain.build.quantizers import Floats
from toolchain.core.records import record
from toolchain.models.quality import queries
from toolchain.models.quality.queries import AttentionLayer
from toolchain.models.quality.samples import rotate, rotation_size
from toolchain.models.quality.scales import gain_db

Doubles: TypeAlias = npt.NDArray[np.float64]
RoundTrip: TypeAlias = Callable[[Floats], Floats]

FEW = 4
"""channels that are few"""
ERRORS = ("as it is", "constant off", "weighted constant off")
"""what is stored: the keys, less their mean, less the mean that `felt_by_cell` weighs; both of the other stretch"""
SPARED = {"first": slice(0, 1), "first 4": slice(0, 4), "newest 32": slice(-32, None), "newest 128": slice(-128, None)}
"""cells of what a query sees whose keys stay exact in a variant"""


@record
class Head:
    """One KV head. Shares are of energy (sum of squares) unless said otherwise, all between 0 and 1."""

    layer: int
    head: int
    window: bool
    rope: str
    """pairing and base of RoPE, as found"""
    before: float
    """share of the mean key before RoPE"""
    after: float
    """of the mean key behind RoPE"""
    other: float
    """what a constant of the other stretch takes off, behind RoPE"""
    few: tuple[float, float, float]
    """share of the `FEW` largest channels: before RoPE, behind it, rotated"""
    first_energy: float
    """energy of the first token's key over that of the mean token"""
    first_weight: float
    """attention weight of the first token, mean over queries"""
    queries_mean: float
    """share of the mean query"""
    snr: tuple[float, float, float]
    """of the type in dB: rotated, not rotated, rotated with the constant off (over the energy of whole keys)"""
    common: float
    """share of the squared score errors, weighted by attention, that all keys of a query have in common"""
    along_queries: float
    """energy of the error along the mean query, times the channels: 1 for one that is the same in all directions"""
    felt: dict[str, float]
    """divergence of the attention weights from the exact ones in nats, mean over queries, by variant"""
    ideal_db: float
    """gain of `ideal_db` at 4 bits over the weighted constant off"""
    allotted_db: float
    """the same for a code that keeps to the channels, and gives each the bits that suit it"""
    scaled_db: float
    """gain of `scales` over the weighted constant off: the best scale for each pair of RoPE"""


def turned(keys: Doubles, base: float, halves: bool) -> npt.NDArray[np.complex128]:
    """Keys (tokens, size) at positions 0, 1 ... with RoPE taken off, as complex pairs (tokens, size / 2).

    `halves`: channel i is paired with i + size / 2 instead of its neighbour. Scaled or partial RoPE is not known here.
    """
    half = keys.shape[-1] // 2
    pairs = keys[:, :half] + 1j * keys[:, half:] if halves else keys[:, 0::2] + 1j * keys[:, 1::2]
    speeds = base ** -(np.arange(half) / half)
    return np.asarray(pairs * np.exp(-1j * np.outer(np.arange(len(keys)), speeds)))


def rope(keys: Doubles, bases: Sequence[float]) -> tuple[float, bool]:
    """The base and pairing that leave keys (tokens, heads, size) most alike: a wrong one spreads what they share."""
    found = {
        (base, halves): sum(share(turned(keys[:, head], base, halves)) for head in range(keys.shape[1]))
        for base in bases
        for halves in (False, True)
    }
    return max(found, key=lambda one: found[one])


def share(vectors: npt.NDArray[np.complex128] | Doubles) -> float:
    """The share of the energy of vectors (tokens, size) that their mean has."""
    return float(np.sum(np.abs(vectors.mean(0)) ** 2) / np.mean(np.sum(np.abs(vectors) ** 2, axis=1)))


def largest(energies: Doubles) -> float:
    """The share of the `FEW` largest channels."""
    return float(np.sort(energies)[-FEW:].sum() / energies.sum())


def divergence(weights: Doubles, errors: Doubles) -> Doubles:
    """Kullback-Leibler divergence of softmax weights (..., cells) from those with `errors` added to the scores.

    A cumulant: log E[exp(d)] - E[d] = variance / 2 + ...; what is the same for all cells drops out.
    """
    mean = np.sum(weights * errors, axis=-1, keepdims=True)
    return np.asarray(np.log(np.sum(weights * np.exp(errors - mean), axis=-1)))


def felt_by_cell(layer: AttentionLayer) -> Doubles:
    """By KV head and cell: how strongly softmax feels an error of the cell's key that has no preferred direction.

    The divergence is half the variance of the score errors under the weights w, so a cell's error counts with
    w (1 - w) and the squares of scale and query.
    """
    heads, at = layer.k.shape[1], np.arange(len(layer.k))
    found = np.zeros(layer.k.shape[1::-1])
    for query, asked in enumerate(layer.q):
        weights, seen = _weights(layer, query, at)
        strength = layer.scale**2 * np.sum(asked.astype(np.float64) ** 2, axis=-1).reshape(heads, -1, 1)
        found[:, seen] += np.sum(strength * weights * (1 - weights), axis=1)
    return found / len(layer.q)


def scales(covariance: Doubles, moments: Doubles, halves: bool) -> Doubles:
    """By channel, what keys are best multiplied by and queries divided: the same for both channels of a pair.

    Scores stay what they are, and RoPE turns a pair as one, so a model's weights can hold these. Of an error that is
    the same in all directions and in proportion to the energy, trace(M / s^2) trace(s^2 C) is felt: least, by Cauchy
    and Schwarz, for s^4 = M / C. `covariance` C of keys and second `moments` M of queries are (size, size).
    """
    pairs = [by_pair(np.diag(one), halves).reshape(-1, 2).sum(1) for one in (moments, covariance)]
    found = (np.maximum(pairs[0], 1e-3 * pairs[0].mean()) / np.maximum(pairs[1], 1e-3 * pairs[1].mean())) ** 0.25
    return np.concatenate([found, found]) if halves else np.repeat(found, 2)


def by_pair(channels: Doubles, halves: bool) -> Doubles:
    """Channels (size,) with those of a pair side by side."""
    return np.asarray(channels.reshape(2, -1).T.reshape(-1) if halves else channels)


def scaled_db(covariance: Doubles, moments: Doubles, by: Doubles) -> float:
    """Gain in dB of scaling keys (size,) `by`, for an error that is even once rotated and in proportion to energy."""
    return gain_db(np.diag(covariance), np.diag(moments), by)


def ideal_db(covariance: Doubles, moments: Doubles, judges: Doubles, bits: float = 4.0) -> float:
    """Gain in dB of the best code for keys of this covariance, whose errors are weighed by the queries' moments.

    Against a code of the same quality and rate whose error is the same in all directions; judged by the moments of
    other queries; all are (size, size). Gaussian keys; reverse water-filling over the eigenvalues of the weighted
    covariance (Cover and Thomas, Elements of Information Theory, 10.3.3).
    """
    size = len(moments)
    values, basis = np.linalg.eigh(moments)
    values = np.maximum(values, 1e-3 * values.mean())
    root, inverse = (basis * values**power @ basis.T for power in (0.5, -0.5))
    spread, axes = np.linalg.eigh(root @ covariance @ root)
    spread = np.maximum(spread, 1e-300)
    low, high = 0.0, float(spread.max())
    for _ in range(100):
        level = (low + high) / 2
        rate = float(np.mean(np.log2(np.maximum(spread / max(level, 1e-300), 1)))) / 2
        low, high = (level, high) if rate > bits else (low, level)
    error = inverse @ (axes * np.minimum(spread, high)) @ axes.T @ inverse
    return float(10 * np.log10(np.trace(judges) * np.trace(covariance) / size * 4**-bits / np.trace(judges @ error)))


def examine(layer: AttentionLayer, other: AttentionLayer, restore: RoundTrip, bases: Sequence[float]) -> Iterator[Head]:
    """The figures of each KV head of a layer; `other` is the same layer after other words."""
    keys, felt_there, felt_here = layer.k, felt_by_cell(other), felt_by_cell(layer)
    size, heads = rotation_size(keys.shape[-1]), keys.shape[1]
    weighted = np.einsum("gc,cgd->gd", felt_there / felt_there.sum(1, keepdims=True), other.k, optimize=True)
    constants = {name: c.astype(np.float32) for name, c in zip(ERRORS[1:], (other.k.mean(0), weighted), strict=True)}

    def errors(values: Floats) -> Floats:
        return rotate(restore(rotate(values, size)), size) - values

    wrong = {ERRORS[0]: errors(keys), **{name: errors(keys - constant) for name, constant in constants.items()}}
    plain = restore(keys) - keys
    felt, common, sink = feel(layer, wrong)
    base, halves = rope(keys.astype(np.float64), bases)
    for head in range(heads):
        own = keys[:, head].astype(np.float64)
        asked = layer.q.astype(np.float64).reshape(len(layer.q), heads, -1)[:, head].reshape(-1, own.shape[1])
        (there, moments), (here, judges) = statistics(other, felt_there, head), statistics(layer, felt_here, head)
        early, energy = turned(own, base, halves), np.sum(own**2, axis=1)
        rotated = rotate(keys[:, head], size).astype(np.float64)
        channels = [np.mean(one**2, axis=0) for one in (np.repeat(np.abs(early), 2, axis=1), own, rotated)]
        mean_query = asked.mean(0) / np.linalg.norm(asked.mean(0))
        error = wrong[ERRORS[0]][:, head].astype(np.float64)
        yield Head(
            layer=layer.layer,
            head=head,
            window=bool(layer.visible.max() < layer.positions.max() + 1),
            rope=f"{'halves' if halves else 'neighbours'}, {base:g}",
            before=share(early),
            after=share(own),
            other=1 - float(np.sum((own - constants[ERRORS[1]][head]) ** 2) / energy.sum()),
            few=(largest(channels[0]), largest(channels[1]), largest(channels[2])),
            first_energy=float(energy[0] / energy.mean()),
            first_weight=float(sink[head]),
            queries_mean=share(asked),
            snr=(_db(own, error), _db(own, plain[:, head]), _db(own, wrong[ERRORS[1]][:, head])),
            common=float(common[head]),
            along_queries=float(np.mean((error @ mean_query) ** 2) * own.shape[1] / np.mean(np.sum(error**2, axis=1))),
            felt={name: float(found[head]) for name, found in felt.items()},
            ideal_db=ideal_db(there, moments, judges),
            allotted_db=ideal_db(np.diag(np.diag(there)), np.diag(np.diag(moments)), judges),
            scaled_db=scaled_db(here, judges, scales(there, moments, halves)),
        )


def statistics(layer: AttentionLayer, felt: Doubles, head: int) -> tuple[Doubles, Doubles]:
    """A KV head's covariance of keys, weighted as `felt_by_cell` says, and second moments of queries."""
    asked = layer.q.astype(np.float64).reshape(len(layer.q), layer.k.shape[1], -1, layer.k.shape[2])[:, head]
    flat = asked.reshape(-1, layer.k.shape[2])
    return np.cov(layer.k[:, head].T.astype(np.float64), aweights=felt[head], bias=True), flat.T @ flat / len(flat)


def feel(layer: AttentionLayer, errors: Mapping[str, Floats]) -> tuple[dict[str, Doubles], Doubles, Doubles]:
    """By KV head: the divergence of each variant, the share of `common` errors, and the first token's weight.

    `errors` are those of `layer`'s keys; the shares are of the first of them. A variant is the name of errors, with
    "first 4 exact" and the like behind a comma where cells are spared.
    """
    assert not layer.cap, "a soft cap bends the scores"
    heads, at = layer.k.shape[1], np.arange(len(layer.k))
    felt: dict[str, Doubles] = {}
    raw, shared, sink = np.zeros((3, heads))
    doubles = {name: one.astype(np.float64) for name, one in errors.items()}
    for query, asked in enumerate(layer.q):
        weights, seen = _weights(layer, query, at)
        grouped = layer.scale * asked.reshape(heads, -1, asked.shape[-1]).astype(np.float64)
        sink += weights[..., 0].mean(1) if not seen.start else 0
        for name, one in doubles.items():
            wrong = np.einsum("ghd,cgd->ghc", grouped, one[seen], optimize=True)
            variants = {name: wrong}
            for spared, cells in SPARED.items():
                kept = variants[f"{name}, {spared} exact"] = wrong.copy()
                if seen.start == 0 or spared.startswith("newest"):
                    kept[..., cells] = 0
            for variant, found in variants.items():
                felt[variant] = felt.get(variant, np.zeros(heads)) + divergence(weights, found).mean(1) / len(layer.q)
            if one is next(iter(doubles.values())):
                raw += np.sum(weights * wrong**2, axis=(1, 2))
                shared += np.sum(np.sum(weights * wrong, axis=2) ** 2, axis=1)
    return felt, shared / np.maximum(raw, 1e-300), sink / len(layer.q)


def _weights(layer: AttentionLayer, query: int, at: npt.NDArray[np.int64]) -> tuple[Doubles, slice]:
    """The attention weights (KV heads, heads of each, cells) of a query, and the cells that it sees."""
    weights = queries.weights(layer, query, layer.k, at).astype(np.float64)
    end = int(layer.positions[query]) + 1
    return weights.reshape(layer.k.shape[1], -1, weights.shape[-1]), slice(end - weights.shape[-1], end)


def _db(values: Doubles, wrong: Floats | Doubles) -> float:
    return float(10 * np.log10(np.sum(values**2) / max(np.sum(wrong.astype(np.float64) ** 2), 1e-300)))
