"""Measurements in pairs, baseline and candidate right after each other, until their interval decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from ..core.records import record
from .interval import Interval
from .result import Verdict
from .trial import Trial
from .voids import Seen, complaints

LEAST = 4
"""pairs before anything is decided"""
_DISTURBED = 3
"""disturbed pairs of a run after which it gives up"""


class Pair(Protocol):
    """What is kept of a pair."""

    @property
    def seen(self) -> Seen:
        """The machine meanwhile."""
        ...


P = TypeVar("P", bound=Pair)


@record
class Judged:
    """An interval against its limit; `settled`: further pairs cannot change the verdict by much."""

    verdict: Verdict
    interval: Interval
    limit: str
    settled: bool = True


def at_most(found: Interval, most: float, limit: str) -> Judged:
    """Passed, failed, or undecided while the interval contains the limit."""
    verdict: Verdict = "passed" if found.high <= most else "failed" if found.low > most else "undecided"
    return Judged(verdict=verdict, interval=found, limit=limit, settled=verdict != "undecided")


def collect(
    trial: Trial,
    key: str,
    kind: type[P],
    take: Callable[[int], P],
    judge: Callable[[Sequence[P]], Sequence[Judged]],
    also: Callable[[P], tuple[str, ...]],
    most: int,
) -> tuple[list[P], list[str]]:
    """Pairs until `judge` is settled, `most` at most; and what voids them.

    A pair that something disturbed (`voids.complaints`, and those of `also`) is kept, but does not count, unless its
    kind of void is accepted; what was accepted is told as well. A run gives up after some of them; the next one goes
    on from there. Without enough other pairs they are returned, too, with what disturbed them.
    """
    clean: list[P] = []
    disturbed: list[P] = []
    why: list[str] = []
    taken: list[str] = []
    given_up = number = 0
    while len(clean) < most and given_up < _DISTURBED:
        cell = f"{key}/{number}"
        known = trial.store.has(cell)
        if not known and len(clean) >= LEAST and all(one.settled for one in judge(clean)):
            break
        pair = trial.kept(cell, kind, lambda: take(number))  # noqa: B023
        number += 1
        found = (*complaints(pair.seen, trial.config.validate.load), *also(pair))
        if refused := [one for one in found if one.partition(":")[0] not in trial.accepted]:
            disturbed.append(pair)
            why += refused
            given_up += not known
        else:
            clean.append(pair)
            taken += found
    if len(clean) >= LEAST:
        return clean, taken
    return [*clean, *disturbed], why + taken
