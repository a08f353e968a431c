"""Two finished validations of one model side by side: what changed, and whether it is more than the errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from ..core import records, templates
from ..core.errors import ConfigError
from ..core.records import record
from ..core.validation_errors import RunsDiffer
from . import wording
from .chart import HEIGHT, WIDTH, chart
from .result import Answer, Figure, Line, Plot, Report, TestResult

_BEYOND = 2.0
"""standard errors of a difference from which on it is called more than the errors"""


@record
class Compared:
    """One of the two validations."""

    id: str
    candidate: str
    baseline: str
    backend: str
    release: str
    machine: str
    started: str
    decision: Answer
    reasons: tuple[str, ...]


@record
class FigureChange:
    """A figure of both runs; None where a run has none.

    `difference` is B's candidate less A's, `error` its standard error out of both runs' errors, as of independent ones.
    """

    name: str
    unit: str
    a: Figure | None
    b: Figure | None
    difference: float | None
    error: float | None
    beyond: bool | None
    """whether the difference is more than twice its error; None: no run states an error"""


@record
class TestChange:
    """A test of both runs; the verdict is empty where a run has none, and void where it is void."""

    test: str
    a: str
    b: str
    changed: bool
    """the verdict"""
    figures: tuple[FigureChange, ...]
    plots: tuple[Plot, ...]
    """of both runs together, where both have one of that title"""


@record
class RunComparison:
    """Two validations of the same model, prompts, text and contexts."""

    model: str
    model_sha256: str
    contexts: tuple[int, ...]
    a: Compared
    b: Compared
    differences: tuple[str, ...]
    """between the runs themselves: what else a changed figure may come from"""
    tests: tuple[TestChange, ...]


_SAME: dict[str, Callable[[Report], object]] = {
    "model": lambda one: one.plan.model_sha256,
    "prompts": lambda one: one.plan.prompts_sha256,
    "text": lambda one: one.plan.text_sha256,
    "contexts": lambda one: one.plan.contexts,
}
_STATED: dict[str, Callable[[Report], object]] = {
    "release": lambda one: one.plan.release or "unknown",
    "candidate": lambda one: one.plan.candidate,
    "baseline": lambda one: one.plan.baseline,
    "served by": lambda one: one.plan.backend,
    "machine": lambda one: _machine(one),
    "seed": lambda one: one.plan.seed,
    "environment": lambda one: wording.environment(one.plan) or "none",
}


def compare(a: Report, b: Report) -> RunComparison:
    """The two side by side.

    Raises `RunsDiffer`, which names what differs, for other models, prompts, texts or contexts, and `ConfigError` for
    an unfinished run.
    """
    for one in (a, b):
        if not one.complete:
            raise ConfigError(f"{one.id} is unfinished", hint=wording.command(one.plan))
    if unlike := [_unlike(name, a, b) for name, of in _SAME.items() if of(a) != of(b)]:
        raise RunsDiffer(
            f"{a.id} and {b.id} cannot be compared: they differ in {'; '.join(unlike)}",
            hint="validate both with the same --model, --text and --contexts, by the same version of the toolkit",
        )
    names = dict.fromkeys(one.test for report in (a, b) for one in report.results)
    return RunComparison(
        model=a.plan.model_name,
        model_sha256=a.plan.model_sha256,
        contexts=a.plan.contexts,
        a=_compared(a),
        b=_compared(b),
        differences=tuple(f"{name}: {of(a)} / {of(b)}" for name, of in _STATED.items() if of(a) != of(b)),
        tests=tuple(_test(name, a.result(name), b.result(name), _runs(a, b)) for name in names),
    )


def save(found: RunComparison, folder: Path) -> Path:
    """Write comparison.html and comparison.json; returns the path of the page."""
    records.write(folder / "comparison.json", found)
    seen = wording.shown(found)
    page = templates.render(
        "validation_comparison.html.j2",
        found=seen,
        charts={one.test: tuple(map(chart, one.plots)) for one in seen.tests},
        words=wording,
        width=WIDTH,
        height=HEIGHT,
    )
    records.write_bytes(folder / "comparison.html", page.encode(errors="replace"))
    return folder / "comparison.html"


def folder_name(a: Report, b: Report) -> str:
    """A short name for the folder of a comparison: the digests of both ids."""
    return "-".join(one.id.rpartition("-")[2] for one in (a, b))


def _machine(report: Report) -> str:
    return report.machine or report.ran_on.system


def _unlike(what: str, a: Report, b: Report) -> str:
    """What differs in both runs, by name and digest."""
    if what == "contexts":
        sides = [", ".join(map(str, one.plan.contexts)) for one in (a, b)]
    else:
        names = {"model": [one.plan.model_name for one in (a, b)], "text": [one.plan.text.name for one in (a, b)]}
        digests = [str(_SAME[what](one))[:12] or "no digest" for one in (a, b)]
        sides = [f"{name} {digest}".strip() for name, digest in zip(names.get(what, ["", ""]), digests, strict=True)]
    return f"{what}: {sides[0]} / {sides[1]}"


def _compared(report: Report) -> Compared:
    plan = report.plan
    return Compared(
        id=report.id,
        candidate=plan.candidate,
        baseline=plan.baseline,
        backend=plan.backend,
        release=plan.release,
        machine=_machine(report),
        started=report.started,
        decision=report.decision.answer,
        reasons=report.decision.reasons,
    )


def _runs(a: Report, b: Report) -> tuple[str, str]:
    """What the lines of both runs are called by."""
    if a.plan.candidate == b.plan.candidate:
        return "A", "B"
    return f"A, {a.plan.candidate}", f"B, {b.plan.candidate}"


def _test(name: str, a: TestResult | None, b: TestResult | None, runs: tuple[str, str]) -> TestChange:
    verdicts = ["" if one is None else "void" if one.voids else one.verdict for one in (a, b)]
    return TestChange(
        test=name,
        a=verdicts[0],
        b=verdicts[1],
        changed=verdicts[0] != verdicts[1],
        figures=tuple(_figures(a.figures if a else (), b.figures if b else ())),
        plots=tuple(_overlaid(a, b, runs)) if a and b else (),
    )


def _figures(a: Iterable[Figure], b: Iterable[Figure]) -> Iterable[FigureChange]:
    """By name; the same name again is the next one of that name."""
    sides = [_numbered(a), _numbered(b)]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        yield _change(key[0], sides[0].get(key), sides[1].get(key))


def _numbered(figures: Iterable[Figure]) -> dict[tuple[str, int], Figure]:
    found: dict[tuple[str, int], Figure] = {}
    for one in figures:
        found[one.name, sum(name == one.name for name, _ in found)] = one
    return found


def _change(name: str, a: Figure | None, b: Figure | None) -> FigureChange:
    values = [one.candidate if one else None for one in (a, b)]
    errors = [one.error for one in (a, b) if one and one.error is not None and math.isfinite(one.error)]
    change = None
    if a and b and a.unit == b.unit and values[0] is not None and values[1] is not None:
        change = values[1] - values[0]
    change = change if change is not None and math.isfinite(change) else None
    error = math.hypot(*errors) if errors and change is not None else None
    return FigureChange(
        name=name,
        unit=(a or b or Figure(name=name)).unit,
        a=a,
        b=b,
        difference=change,
        error=error,
        beyond=None if change is None or error is None else abs(change) > _BEYOND * error,
    )


def _overlaid(a: TestResult, b: TestResult, runs: tuple[str, str]) -> Iterable[Plot]:
    """Plots of one title in both runs, with the lines of both; a line that is the same in both is there once."""
    others = {plot.title: plot for plot in b.plots}
    for plot in a.plots:
        if other := others.get(plot.title):
            both = [line for line in plot.lines if line in other.lines]
            own = [_named(runs[0], line) for line in plot.lines if line not in both]
            own += [_named(runs[1], line) for line in other.lines if line not in both]
            limit = plot.limit if plot.limit is not None else other.limit
            yield replace(plot, lines=(*both, *own), limit=limit)


def _named(run: str, line: Line) -> Line:
    return replace(line, name=f"{run}: {line.name}")
