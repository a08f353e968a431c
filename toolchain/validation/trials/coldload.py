"""Seconds from the start of a server until its model is loaded, in pairs. A part of the speed test.

The system's cache of the model's file is dropped before each load, where the system allows it (Linux).
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from ...core.records import record
from ..interval import of_differences
from ..pairs import Judged, at_most, collect
from ..plan import SIDES, Side
from ..result import Figure, TestResult
from ..trial import Trial
from ..voids import Seen, Watch

_MOST = 6
_LIMIT_S = 5.0


@record
class Loads:
    """Seconds of a load of each side; `cold`: the file's cache was dropped before."""

    baseline_s: float
    candidate_s: float
    cold: bool
    seen: Seen


def measure(trial: Trial, watch: Watch) -> TestResult:
    """Loads with the shortest context. Stops both servers."""
    pairs, voids = collect(trial, "speed/load", Loads, lambda _: _loads(trial, watch), _judge, lambda _: (), _MOST)
    (judged,) = _judge(pairs)
    figure = Figure(
        name="load",
        baseline=statistics.median(one.baseline_s for one in pairs),
        candidate=statistics.median(one.candidate_s for one in pairs),
        unit="s",
        error=judged.interval.error if math.isfinite(judged.interval.error) else None,
        limit=judged.limit,
        ok=None if judged.verdict == "undecided" else judged.verdict == "passed",
    )
    cold = all(one.cold for one in pairs)
    note = "dropped before" if cold else "not dropped, so they need not be cold"
    return TestResult(
        test="load",
        verdict=judged.verdict,
        summary="",
        figures=(figure,),
        notes=(f"{len(pairs)} pairs of loads, the system's cache of the model's file {note}",),
        voids=tuple(voids),
    )


def _loads(trial: Trial, watch: Watch) -> Loads:
    seconds: dict[Side, float] = {}
    for side in SIDES:
        trial.sides.stop(side)
    cold = True
    with watch:
        for side in SIDES:
            cold &= _drop_cache(trial.plan.model)
            trial.at(side, trial.plan.contexts[0])
            seconds[side] = trial.sides.load_s(side)
            trial.sides.stop(side)
    return Loads(baseline_s=seconds["baseline"], candidate_s=seconds["candidate"], cold=cold, seen=watch.seen)


def _drop_cache(path: Path) -> bool:
    """Ask the system to forget its cache of a file, and whether it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
        return True
    return False


def _judge(pairs: Sequence[Loads]) -> tuple[Judged]:
    found = of_differences([(one.baseline_s, one.candidate_s) for one in pairs])
    return (at_most(found, _LIMIT_S, f"<= {_LIMIT_S:g} s more, from {found.low:+.1f} to {found.high:+.1f}"),)
