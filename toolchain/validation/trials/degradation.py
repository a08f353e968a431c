"""Where the forced KL of a session begins to rise: a CUSUM over the whole session, judged by permutations.

The KL of a turn depends on how predictable its text is. Small independent errors of variance s2 in a model's logits
cost a KL of s2 / 2 x u, u = 1 - sum of p^2 being the uncertainty of the prediction p; large errors change certain
tokens, too, and cost nearly the same everywhere. A small model that begins to repeat itself lowers u, and the KL with
it, tenfold. So y, the logarithm of a turn's mean KL, is compared at equal uncertainty:

    y = a + b x log u + rise from turn c on + noise,   b from the session itself, within both parts

b is at most 1, and near it where the errors are small; at least 0 where they are large. Without that bound a growth
that goes on while u falls would be taken for a small b.

For each possible c the rise is estimated by least squares and divided by its standard error (Page's CUSUM, looked at
as a whole afterwards, so that no early part has to calibrate it). The clearest one is compared with those of sessions
without a rise: a + b x log u, and the noise in another order, in blocks of two turns, since neighbours share their
text. The share of them that have one as clear bounds the false alarms of a setting that varies by chance. A rise must
also be one by `FACTOR`, so that many turns do not make a trifle significant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ...core.records import record

FACTOR = 1.5
"""by which the KL must rise, at equal uncertainty"""
SIGNIFICANCE = 0.002
"""chance of a false alarm where turns are independent; those of real sessions are so nearly (docs/results)"""
FLOOR = 1e-3
"""nats where nothing is certain: less is rounding (f16 against f16 on another number of threads)"""
_LEAST = 1e-2
"""uncertainty of a turn whose every token is certain"""
_EARLY, _LATE = 5, 3
"""turns before and after a rise, at least"""
_BLOCK = 2
_PERMUTATIONS = 5000
_SMALL = 0.2
"""KL by uncertainty, in nats, up to which errors are small"""
_SPREAD = 1e-4
"""variance of y without any noise, so that a hundredth is no rise"""
Floats = npt.NDArray[np.float64]


@record
class Turning:
    """A turn's means over its positions: KL in nats, and uncertainty."""

    kl: float
    uncertainty: float


@record
class Rise:
    """The clearest rise. `turn` is the first one of the higher level, from 1; `slope` is b."""

    turn: int
    factor: float
    chance: float
    """share of permutations with a rise as clear"""
    slope: float

    @property
    def degraded(self) -> bool:
        """Whether it is more than chance, and more than a trifle."""
        return self.chance < SIGNIFICANCE and self.factor >= FACTOR


def uncertainty(prediction: Mapping[str, float]) -> float:
    """1 - sum of p^2 of a prediction's listed tokens; the others' squares are negligible."""
    return 1 - float(np.sum(np.exp(2 * np.array(list(prediction.values())))))


def rise(turns: Sequence[Turning]) -> Rise:
    """The clearest rise of a session. One too short to have any has chance 1."""
    if len(turns) < _EARLY + _LATE + _BLOCK:
        return Rise(turn=len(turns), factor=1.0, chance=1.0, slope=1.0)
    y, w = _logarithms(turns)
    least = _least_slope(y, w)
    z, rises = _scan(y[None], w, least)
    at = int(np.argmax(z[0]))
    slope = _slope(y, w)
    noise = y - np.mean(y) - slope * (w - np.mean(w))
    drawn = _scan(slope * w + _permuted(noise), w, least)[0].max(axis=1)
    chance = float((1 + np.sum(drawn >= z[0, at] - 1e-6)) / (1 + len(drawn)))
    return Rise(turn=at + _EARLY + 1, factor=float(np.exp(rises[0, at])), chance=chance, slope=slope)


def levels(turns: Sequence[Turning]) -> list[float]:
    """The KL of each turn as it would be at the session's mean uncertainty."""
    y, w = _logarithms(turns)
    return [float(one) for one in np.exp(y - _slope(y, w) * (w - np.mean(w)))]


def noticed(turns: Sequence[Turning]) -> int | None:
    """The first turn, from 1, after which the session up to there would have been called degraded."""
    shortest = _EARLY + _LATE + _BLOCK
    return next((end for end in range(shortest, len(turns) + 1) if rise(turns[:end]).degraded), None)


def _logarithms(turns: Sequence[Turning]) -> tuple[Floats, Floats]:
    """y and log u."""
    u = np.maximum([one.uncertainty for one in turns], _LEAST)
    return np.log(np.array([one.kl for one in turns]) + FLOOR * u), np.log(u)


def _slope(y: Floats, w: Floats) -> float:
    """b of a session without a rise."""
    centred = w - np.mean(w)
    return float(np.clip(np.sum(centred * y) / max(np.sum(centred**2), 1e-12), _least_slope(y, w), 1))


def _least_slope(y: Floats, w: Floats) -> float:
    return 0.9 if np.median(y - w) < math.log(_SMALL) else 0.0


def _scan(rows: Floats, w: Floats, least: float) -> tuple[Floats, Floats]:
    """For each row of y, and each possible first turn of a rise: the rise by its standard error, and the rise."""
    n = rows.shape[1]
    early = np.arange(_EARLY, n - _LATE + 1)
    late = n - early
    (y1, y2), (w1, w2) = _means(rows, early), _means(w, early)
    yy = np.sum(rows**2, axis=1, keepdims=True) - early * y1**2 - late * y2**2
    ww = np.maximum(np.sum(w**2) - early * w1**2 - late * w2**2, 1e-12)
    yw = np.sum(rows * w, axis=1, keepdims=True) - early * y1 * w1 - late * y2 * w2
    slope = np.clip(yw / ww, least, 1)
    left = np.maximum(yy - 2 * slope * yw + slope**2 * ww, 0) / (n - 3) + _SPREAD
    rises = y2 - y1 - slope * (w2 - w1)
    return rises / np.sqrt(left * (1 / early + 1 / late + (w2 - w1) ** 2 / ww)), rises


def _means(rows: Floats, early: npt.NDArray[np.int_]) -> tuple[Floats, Floats]:
    """The means before and from each possible first turn of a rise."""
    first = np.cumsum(rows, axis=-1)[..., early - 1]
    total = np.sum(rows, axis=-1, keepdims=True)
    return first / early, (total - first) / (rows.shape[-1] - early)


def _permuted(noise: Floats) -> Floats:
    """Rows of the noise with its blocks in random order; the order is the same in every run."""
    blocks = len(noise) // _BLOCK
    orders = np.random.default_rng(50).permuted(np.tile(np.arange(blocks), (_PERMUTATIONS, 1)), axis=1)
    places = (orders[:, :, None] * _BLOCK + np.arange(_BLOCK)).reshape(_PERMUTATIONS, -1)
    odd = np.broadcast_to(np.arange(blocks * _BLOCK, len(noise)), (_PERMUTATIONS, len(noise) % _BLOCK))
    return np.asarray(noise[np.concatenate([places, odd], axis=1)])
