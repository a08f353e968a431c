"""Where a series of levels begins to rise: a CUSUM over the whole series, judged by permutations of it.

The level of a turn must not depend on how predictable its text is. Small independent errors of variance s2 in a
model's logits cost a KL of s2 / 2 x (1 - sum of p^2), p being the probabilities of the next tokens. So the level is
the sum of the KL over a turn divided by the sum of 1 - sum of p^2: about half of the logits' error variance, the same
for code, where nearly every token is certain, and for prose.

The series is its logarithm x. For each possible turn c, the mean of x from c on is compared with the mean before
(Page's CUSUM, looked at as a whole afterwards, so that the early level needs no calibration of its own):

    z(c) = (mean after - mean before) x sqrt(n1 x n2 / n) / s,  s the standard deviation within both parts

The largest z(c) is compared with those of permutations of blocks of two turns (neighbours share their text): the share
of them that reach it bounds the false alarms of a setting whose level varies by chance. A rise must also be one by
`FACTOR` in level, so that many turns do not make a trifle significant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ...core.records import record

FACTOR = 1.5
"""by which the level must rise"""
SIGNIFICANCE = 0.002
"""chance of a false alarm where turns are independent; those of real sessions are so nearly (docs/results)"""
FLOOR = 1e-3
"""nats: levels below are those of rounding (f16 against f16 on another number of threads), and count as it"""
_EARLY, _LATE = 5, 3
"""turns before and after a rise, at least"""
_BLOCK = 2
_PERMUTATIONS = 5000
Levels = npt.NDArray[np.float64]


@record
class Rise:
    """A rise of the level. `turn` is the first one of the higher level, from 1."""

    turn: int
    factor: float
    chance: float
    """share of permutations with a rise as clear"""

    @property
    def degraded(self) -> bool:
        """Whether it is more than chance, and more than a trifle."""
        return self.chance < SIGNIFICANCE and self.factor >= FACTOR


def uncertainty(prediction: Mapping[str, float]) -> float:
    """1 - sum of p^2 of a prediction's listed tokens; the others' squares are negligible."""
    return 1 - float(np.sum(np.exp(2 * np.array(list(prediction.values())))))


def level(divergences: Sequence[float], uncertainties: Sequence[float]) -> float:
    """The level of one turn in nats: KL for each position as uncertain as can be."""
    return float(np.sum(divergences) / max(np.sum(uncertainties), 1e-2 * len(uncertainties)))


def rise(levels: Sequence[float]) -> Rise:
    """The clearest rise of a series of levels, turn by turn. A series too short to have one has chance 1."""
    x = np.log(np.array(levels, dtype=np.float64) + FLOOR)
    if len(x) < _EARLY + _LATE + _BLOCK:
        return Rise(turn=len(x), factor=1.0, chance=1.0)
    z = _scan(x[None])[0]
    at = int(np.argmax(z))
    turn = at + _EARLY
    drawn = _scan(_permuted(x)).max(axis=1)
    factor = float(np.exp(np.mean(x[turn:]) - np.mean(x[:turn])))
    return Rise(turn=turn + 1, factor=factor, chance=float((1 + np.sum(drawn >= z[at])) / (1 + len(drawn))))


def noticed(levels: Sequence[float]) -> int | None:
    """The first turn, from 1, after which the series up to there would have been called degraded."""
    shortest = _EARLY + _LATE + _BLOCK
    return next((end for end in range(shortest, len(levels) + 1) if rise(levels[:end]).degraded), None)


def _scan(rows: Levels) -> Levels:
    """z of each row at each possible turn."""
    n = rows.shape[1]
    before = np.arange(_EARLY, n - _LATE + 1)
    total, squares = rows.sum(axis=1, keepdims=True), (rows**2).sum(axis=1, keepdims=True)
    first = np.cumsum(rows, axis=1)[:, before - 1]
    low, high = first / before, (total - first) / (n - before)
    within = np.maximum(squares - before * low**2 - (n - before) * high**2, 0) / (n - 2)
    deviation = np.sqrt(within + 1e-4)  # a series without any spread has no rise of a hundredth
    return np.asarray((high - low) * np.sqrt(before * (n - before) / n) / deviation)


def _permuted(x: Levels) -> Levels:
    """Rows of the series with its blocks in random order; the order is the same in every run."""
    blocks = len(x) // _BLOCK
    orders = np.random.default_rng(50).permuted(np.tile(np.arange(blocks), (_PERMUTATIONS, 1)), axis=1)
    places = (orders[:, :, None] * _BLOCK + np.arange(_BLOCK)).reshape(_PERMUTATIONS, -1)
    odd = np.broadcast_to(np.arange(blocks * _BLOCK, len(x)), (_PERMUTATIONS, len(x) % _BLOCK))
    return np.asarray(x[np.concatenate([places, odd], axis=1)])
