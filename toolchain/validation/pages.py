"""A validation's files for its readers: report.html, report.md, and validation.json for `release.attest`.

They are made of the report (result.json) alone, so `validate.report` makes them anew without a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core import records, templates
from ..core.records import record
from ..publishing.testresult import Outcome, Validation
from . import wording
from .chart import HEIGHT, WIDTH, Chart, chart
from .parallel import Parallel, parallel
from .result import Pair, Report, TestResult

_NOTHING_FAILED = ("passed", "reported", "not asked")
"""verdicts of a test that the gate lets pass"""
_LONG = 1500
"""characters of an answer from which on a page folds it"""


@record
class ValidationRecord(Validation):
    """validation.json, for `release.attest --validation`, and what was validated. `ok`: the gate says proceed."""

    validation: str
    """its id"""
    decision: str
    model: str
    model_sha256: str
    baseline: str
    candidate: str
    backend: str
    contexts: tuple[int, ...]
    started: str


@record
class Section:
    """A test on the page."""

    name: str
    result: TestResult | None
    """None: it has none"""
    why: str
    """it has no result"""
    charts: tuple[Chart | None, ...]
    pairs: tuple[tuple[Pair, Parallel], ...]

    @property
    def verdict(self) -> str:
        """The test's verdict, void before all."""
        if self.result is None:
            return "not run"
        return "void" if self.result.voids else self.result.verdict

    @property
    def detailed(self) -> bool:
        """Whether there is more of it than its line in the matrix."""
        one = self.result
        return one is not None and any((one.figures, one.notes, one.voids, one.plots, one.tables, one.pairs))


def render(report: Report, folder: Path, tests: Sequence[str]) -> Path:
    """Write report.html and report.md, and validation.json for a complete run of a release; returns the page's path.

    `tests` are all tests of the matrix. In the folder of an unfinished run no validation.json remains.
    """
    for name, text in (("report.html", html(report, tests)), ("report.md", markdown(report, tests))):
        records.write_bytes(folder / name, text.encode(errors="replace"))
    if report.complete and report.plan.release:
        records.write(folder / "validation.json", attested(report))
    elif (folder / "result.json").is_file():
        (folder / "validation.json").unlink(missing_ok=True)
    return folder / "report.html"


def html(report: Report, tests: Sequence[str]) -> str:
    """The page."""
    report = wording.shown(report)
    return templates.render(
        "validation.html.j2",
        report=report,
        sections=tuple(_sections(report, tests)),
        facts=facts(report),
        words=wording,
        width=WIDTH,
        height=HEIGHT,
        long=_LONG,
    )


def markdown(report: Report, tests: Sequence[str]) -> str:
    """The same as Markdown."""
    report = wording.shown(report)
    return templates.render(
        "validation.md.j2",
        report=report,
        sections=tuple(_sections(report, tests)),
        facts=facts(report),
        words=wording,
        md=wording.in_markdown,
    )


def facts(report: Report) -> list[tuple[str, str]]:
    """What was measured where, and by which digests."""
    plan = report.plan
    contexts = ", ".join(map(str, plan.contexts))
    found = [
        ("validation", report.id),
        ("model", f"{plan.model_name}, trained on {plan.trained_context} tokens"),
        ("cache types", f"{plan.candidate} (candidate), {plan.baseline} (baseline)"),
        ("served by", plan.backend if not plan.baseline_url else f"{plan.baseline_url}, {plan.candidate_url}"),
        ("release", plan.release or "unknown: endpoints were given"),
        ("contexts", f"{contexts} tokens"),
        ("machine", f"{report.machine or report.ran_on.system} ({report.ran_on.platform})"),
        ("time", f"{report.started[:19].replace('T', ' ')} UTC; {_seconds(report)}"),
        ("seed", str(plan.seed)),
        ("SHA-256 of the model", plan.model_sha256),
        ("SHA-256 of the release's content", plan.content_sha256),
        (f"SHA-256 of the text, {plan.text_bytes} bytes", plan.text_sha256),
        ("SHA-256 of the prompts", plan.prompts_sha256),
    ]
    return [(name, value) for name, value in found if value]


def attested(report: Report) -> ValidationRecord:
    """The record for `release.attest`."""
    plan = report.plan
    ok = report.complete and report.decision.answer == "proceed"
    tests = [Outcome(name=one.test, ok=one.verdict in _NOTHING_FAILED and not one.voids) for one in report.results]
    return ValidationRecord(
        release=plan.release,
        content_sha256=plan.content_sha256,
        ok=ok,
        tests=(*tests, *([] if ok else [Outcome(name=f"gate: {report.decision.answer}", ok=False)])),
        ran_on=report.ran_on,
        validation=report.id,
        decision=report.decision.answer,
        model=plan.model_name,
        model_sha256=plan.model_sha256,
        baseline=plan.baseline,
        candidate=plan.candidate,
        backend=plan.backend,
        contexts=plan.contexts,
        started=report.started,
    )


def _sections(report: Report, tests: Sequence[str]) -> Iterator[Section]:
    for one in report.results:
        yield Section(
            name=one.test,
            result=one,
            why="",
            charts=tuple(chart(plot) for plot in one.plots),
            pairs=tuple((pair, parallel(pair.baseline, pair.candidate)) for pair in one.pairs),
        )
    measured = {one.test for one in report.results}
    for name, why in wording.not_asked(report, tests):
        if name not in measured:
            yield Section(name=name, result=None, why=why, charts=(), pairs=())


def _seconds(report: Report) -> str:
    seconds = sum(one.seconds for one in report.results)
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
