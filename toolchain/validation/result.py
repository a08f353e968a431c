"""What the tests found: figures, a verdict for each test, and what a reader looks at."""

from __future__ import annotations

from typing import Literal

from ..core.records import record
from ..proofs import RanOn
from .plan import Plan

Verdict = Literal["passed", "failed", "kill", "broken", "reported", "not asked", "undecided"]
"""`broken`: the build does not do what the type promises; `not asked`: the baseline or the server cannot do it;
`undecided`: a human's verdict is missing"""
Answer = Literal["proceed", "try another setting", "fix first", "kill", "not decided", "void"]


@record
class Figure:
    """A number of both sides, in `unit`; None for a side that has none.

    `error` is a standard error of the figure that is judged, `limit` is what it must meet, in words, and `ok` whether
    it does (None: no limit).
    """

    name: str
    baseline: float | None = None
    candidate: float | None = None
    unit: str = ""
    error: float | None = None
    limit: str = ""
    ok: bool | None = None


@record
class Line:
    """A line of a plot. None, which JSON also writes for a number that is not finite, is a gap."""

    name: str
    x: tuple[float | None, ...]
    y: tuple[float | None, ...]


@record
class Plot:
    """A plot of the report."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    limit: float | None = None
    """drawn as a horizontal line"""


@record
class Table:
    """A table of the report."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@record
class Pair:
    """Two answers side by side, for a human. `key` names it in the verdicts that are entered."""

    key: str
    title: str
    prompt: str
    baseline: str
    candidate: str
    checks: tuple[str, ...] = ()
    """what was checked automatically, in words"""
    verdict: Literal["", "same", "worse", "better"] = ""
    """the human's; empty: not given yet"""


@record
class TestResult:
    """One test of the matrix."""

    test: str
    verdict: Verdict
    summary: str
    """one line"""
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    voids: tuple[str, ...] = ()
    """what disturbed it, so that it proves nothing"""
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    pairs: tuple[Pair, ...] = ()
    seconds: float = 0.0


@record
class Decision:
    """The gate's answer and its reasons."""

    answer: Answer
    reasons: tuple[str, ...]
    next: str
    """what to do now"""


@record
class Report:
    """result.json of a validation."""

    id: str
    plan: Plan
    ran_on: RanOn
    machine: str
    started: str
    """UTC, ISO 8601"""
    results: tuple[TestResult, ...]
    decision: Decision
    complete: bool
    """false for a run that was interrupted, or is under way"""

    def result(self, test: str) -> TestResult | None:
        """The result of a test, if there is one."""
        return next((one for one in self.results if one.test == test), None)
