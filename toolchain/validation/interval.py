"""95% confidence intervals of paired measurements, by Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from ..core.records import record

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120)
"""the 97.5% quantile for 1, 2, ... degrees of freedom; the last one bounds those beyond"""


@record
class Interval:
    """A mean with its bounds; `error` is the standard error. With a single measurement the bounds are infinite."""

    mean: float
    low: float
    high: float
    error: float


def of_differences(pairs: Sequence[tuple[float, float]]) -> Interval:
    """Second minus first."""
    return _interval([second - first for first, second in pairs])


def of_ratios(pairs: Sequence[tuple[float, float]]) -> Interval:
    """Second over first, by their logarithms, so that the ratio and its inverse have the same interval."""
    found = _interval([math.log(second / first) for first, second in pairs])
    mean = math.exp(found.mean)
    high = math.exp(found.high) if found.high < 700 else math.inf
    return Interval(mean=mean, low=math.exp(found.low), high=high, error=mean * found.error)


def _interval(values: Sequence[float]) -> Interval:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean=mean, low=-math.inf, high=math.inf, error=math.inf)
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = _T[min(len(values) - 1, len(_T)) - 1] * error
    return Interval(mean=mean, low=mean - reach, high=mean + reach, error=error)
