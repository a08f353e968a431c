"""Figures of merit of one round trip: how far the restored numbers are from the original ones."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ...build.quantizers import Floats
from ...core.records import record

Doubles: TypeAlias = npt.NDArray[np.float64]

DB_PER_BIT = 20 * math.log10(2)
"""Shannon: a Gaussian source at R bits per value has an SNR of at most 20 log10(2) = 6.02 dB per bit."""
QUERIES = 64
SCORE_DEVIATION = 1.0
"""Spread of attention scores (nats) over a context: that of queries and keys drawn from N(0,1)."""
SHORTEST_CONTEXT = 256


@record
class Estimate:
    """A mean and its standard error."""

    mean: float
    error: float


@record
class Figures:
    """The errors of a round trip. All are independent of the data's scale."""

    snr_db: float
    """10 log10 of the data's energy over the squared error's"""
    cosine: float
    """of a head's vector with its restored self, mean over vectors"""
    ip_bias: float
    """slope of <q, x'> over <q, x> for random unit queries q, less 1: 0 is unbiased, below it scores shrink"""
    ip_variance: float
    """variance of <q, x'> - <q, x>, over the mean square of <q, x>"""


@record
class ScoreFigures:
    """Accuracy of attention: cosines of restored with original values, mean over queries and heads."""

    context: int
    scores: float
    """of the scores q.k / sqrt(head size) over the context"""
    weights: float
    """of their softmax"""


def compare(values: Floats, restored: Floats, rng: np.random.Generator) -> Figures:
    """Figures of `restored` against `values`, both (..., head size); `rng` draws the unit queries."""
    head_size = values.shape[-1]
    x = values.reshape(-1, head_size).astype(np.float64)
    error = restored.reshape(-1, head_size).astype(np.float64) - x
    energy, lost = float(np.sum(x * x)), float(np.sum(error * error))
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(x + error, axis=1)
    told = norms > 0
    cosine = np.sum(x * (x + error), axis=1)[told] / norms[told]
    queries = rng.standard_normal((head_size, QUERIES))
    queries /= np.linalg.norm(queries, axis=0)
    exact, wrong = x @ queries, error @ queries
    square = float(np.sum(exact * exact))
    return Figures(
        snr_db=10 * math.log10(energy / lost) if energy and lost else math.inf,
        cosine=float(cosine.mean()) if cosine.size else 1.0,
        ip_bias=float(np.sum(exact * wrong)) / square if square else 0.0,
        ip_variance=float(wrong.var()) * exact.size / square if square else 0.0,
    )


def mean(figures: list[Figures]) -> Figures:
    """The mean over parts, with equal weights regardless of scale: errors are averaged, not decibels."""
    lost = np.mean([10 ** (-one.snr_db / 10) for one in figures])
    return Figures(
        snr_db=-10 * math.log10(lost) if lost else math.inf,
        cosine=float(np.mean([one.cosine for one in figures])),
        ip_bias=float(np.mean([one.ip_bias for one in figures])),
        ip_variance=float(np.mean([one.ip_variance for one in figures])),
    )


def attention(keys: Floats, restored: Floats, rng: np.random.Generator) -> tuple[ScoreFigures, ...]:
    """Scores and weights over contexts of 256, 1024, 4096 ... tokens, up to all of `keys` (tokens, heads, head size).

    The queries are random and scaled so that the scores spread by `SCORE_DEVIATION` over the context.
    """
    tokens, heads, head_size = keys.shape
    contexts = [SHORTEST_CONTEXT * 4**step for step in range(12) if SHORTEST_CONTEXT * 4**step < tokens] + [tokens]
    queries = rng.standard_normal((heads, head_size, QUERIES)).astype(np.float32)
    exact = np.einsum("thd,hdq->hqt", keys, queries, optimize=True).astype(np.float64)
    rough = np.einsum("thd,hdq->hqt", restored, queries, optimize=True).astype(np.float64)
    found = []
    for context in contexts:
        a, b = exact[..., :context], rough[..., :context]
        factor = SCORE_DEVIATION / np.maximum(a.std(axis=-1, keepdims=True), 1e-30)
        scores = float(_cosine(a, b).mean())
        weights = float(_cosine(_softmax(a * factor), _softmax(b * factor)).mean())
        found.append(ScoreFigures(context=context, scores=scores, weights=weights))
    return tuple(found)


def _softmax(scores: Doubles) -> Doubles:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _cosine(a: Doubles, b: Doubles) -> Doubles:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray(np.sum(a * b, axis=-1) / np.maximum(norms, 1e-30))
