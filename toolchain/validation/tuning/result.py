"""What a tuning found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...core.records import record
from ...models.quality.measure import Estimate
from ...proofs import RanOn
from .shares import Losses

_RESAMPLES = 2000


@record
class Row:
    """A setting that was measured on the text that the shares never saw. KL is in nats per token."""

    setting: str
    bytes: int
    """of the caches at the context, as the planner has them"""
    bits_per_value: float
    predicted: Estimate | None
    """by the shares; None for a setting with a type that has none"""
    kl: Estimate
    """its error is that of a bootstrap over chunks"""
    delta: Estimate
    """of perplexity"""
    same_top: Estimate
    """percentage of positions where f16 predicts the same top token"""
    ratio: Estimate | None
    """of the chosen setting's KL to this one's, paired by chunks"""


@record
class Tuning:
    """tuning.json: the setting that loses least within `room` bytes of cache at a context."""

    id: str
    model: str
    model_sha256: str
    text_sha256: str
    context: int
    room: int
    why: str
    """where `room` comes from"""
    types: tuple[str, ...]
    share_context: int
    """tokens of one context that the shares are measured on"""
    share_chunks: int
    final_context: int
    final_chunks: int
    losses: Losses
    setting: str
    bytes: int
    stated: bool
    """the log of the program, loaded at that context, states the planner's bytes; false: it was too large to load"""
    predicted: Estimate
    optimum: float
    """predicted loss of the best setting with any number of rules"""
    bound: float
    """no setting within `room` has a lower predicted loss"""
    optimal: bool
    """`optimum` is exact"""
    better: str
    """a setting of `rows` within `room` that measured better, and is in the profile; empty: none did"""
    rows: tuple[Row, ...]
    seconds: float
    """of this run's measurements"""
    profile: Path
    """a file for --config with the setting"""
    ran_on: RanOn


def mean(chunks: Sequence[float]) -> Estimate:
    """Mean over chunks, with the standard error of a bootstrap."""
    values = np.array(chunks)
    return Estimate(mean=float(values.mean()), error=float(values[_drawn(len(values))].mean(axis=1).std()))


def ratio(chunks: Sequence[float], of: Sequence[float]) -> Estimate | None:
    """Ratio of two means over the same chunks, with the standard error of a bootstrap of pairs; None where one is not
    above zero."""
    a, b = np.array(chunks), np.array(of)
    if a.shape != b.shape or b.mean() <= 0:
        return None
    rows = _drawn(len(a))
    drawn = a[rows].mean(axis=1) / np.maximum(b[rows].mean(axis=1), 1e-12)
    return Estimate(mean=float(a.mean() / b.mean()), error=float(drawn.std()))


def _drawn(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return np.random.default_rng(1).integers(0, count, (_RESAMPLES, count))
