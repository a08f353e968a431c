"""The server's memory with a filled context, against the memory planner.

    peak      of the server and its children since their start, with the context filled (`host.footprint`)
    planned   weights + KV cache + working memory

More than 15% above the plan lowers the context that can be had, and fails; less memory than planned is a note, since
nothing is lost by it. The log's caches must have the planned bytes.
"""

from __future__ import annotations

import threading

from ...core.errors import ArchitectureUnknown
from ...core.records import record
from ...host import footprint
from ...models.memory.plan import GIB
from ..filling import ROOM, filling
from ..plan import SIDES, Side
from ..planned import Planned, Planner
from ..result import Figure, Line, Plot, TestResult, Verdict
from ..trial import Trial

NAME = "memory"
_MOST = 1.15
_MIB = 1 << 20
_EVERY_S = 0.5


@record
class Peak:
    """Bytes. `file` is the part of mapped files at the end; `contradiction` says how the log's caches differ."""

    planned: Planned
    peak: int
    file: int
    source: str
    filled: int
    """tokens that were read"""
    contradiction: str

    @property
    def ratio(self) -> float:
        """Measured over planned."""
        return self.peak / self.planned.total


def measure(trial: Trial) -> TestResult:
    """Each context of the plan on each side, one server at a time."""
    if trial.plan.baseline_url:
        return TestResult(test=NAME, verdict="not asked", summary="the servers' processes are not known here")
    try:
        planner = Planner(trial)
    except ArchitectureUnknown as error:
        return TestResult(test=NAME, verdict="not asked", summary=error.message)
    contexts = trial.plan.contexts
    found: dict[Side, list[Peak]] = {side: [] for side in SIDES}
    with trial.progress("memory", len(SIDES) * len(contexts)) as progress:
        for side in SIDES:
            for context in contexts:
                key = f"memory/{side}/{context}"
                known = trial.store.has(key)
                found[side].append(
                    trial.kept(key, Peak, lambda: _peak(trial, planner, side, context))  # noqa: B023
                )
                progress.advance(f"{side} at {context}", measured=not known)
    return _judged(planner, found)


def _peak(trial: Trial, planner: Planner, side: Side, context: int) -> Peak:
    text = filling(trial, context, int(ROOM * context), f"memory {side}")
    for one in SIDES:  # a fresh server, alone: nothing of earlier prompts, and no file that two have mapped
        trial.sides.stop(one)
    endpoint = trial.at(side, context)
    with Sampled(endpoint.pid) as sampled:
        answer = endpoint.generate(text, tokens=1, reuse=False)
    assert endpoint.log
    return Peak(
        planned=planner.at(side, context),
        peak=sampled.peak,
        file=sampled.file,
        source=sampled.source,
        filled=answer.counters.prompt,
        contradiction=planner.contradiction(side, context, endpoint.log.read_text(errors="replace")),
    )


class Sampled:
    """Looks at the memory of a process and its children in a thread, while a `with` block runs, and at its end."""

    def __init__(self, pid: int) -> None:
        self.peak, self.file, self.source = 0, 0, ""
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> Sampled:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        over = False
        while not over:
            over = self._over.wait(_EVERY_S)
            if found := footprint.of(self._pid):
                self.peak, self.file, self.source = max(self.peak, found.peak), found.file, found.source


def _judged(planner: Planner, found: dict[Side, list[Peak]]) -> TestResult:
    both = list(zip(found["baseline"], found["candidate"], strict=True))
    candidate = found["candidate"]
    worst = max(candidate, key=lambda one: one.ratio)
    wrong = [
        f"{side} at {one.planned.context}: {one.contradiction}"
        for side in SIDES
        for one in found[side]
        if one.contradiction
    ]
    over = [one for one in candidate if one.peak > planner.budget]
    problems = [*wrong, *(f"{_gib(one.peak)} at {one.planned.context}, over the budget" for one in over)]
    if worst.ratio > _MOST:
        drops = f"the ceiling drops from {planner.largest('candidate')} to {planner.largest('candidate', worst.ratio)}"
        problems.append(f"{worst.ratio:.0%} of the plan at {worst.planned.context}: {drops} tokens")
    verdict: Verdict = "broken" if wrong else "failed" if problems else "passed"
    if not all(one.peak for one in candidate):
        verdict, problems = "undecided", ["the server's memory cannot be examined by this user"]
    saved = 1 - candidate[-1].planned.kv / max(1, found["baseline"][-1].planned.kv)
    return TestResult(
        test=NAME,
        verdict=verdict,
        summary="; ".join(problems) or f"at most {worst.ratio:.0%} of the plan; {saved:.0%} less for the KV cache",
        figures=tuple(figure for before, after in both for figure in _figures(planner, before, after)),
        notes=_notes(found),
        plots=(_plot(found),),
    )


def _figures(planner: Planner, before: Peak, after: Peak) -> tuple[Figure, ...]:
    context = after.planned.context
    return (
        Figure(
            name=f"peak at {context}",
            baseline=before.peak / _MIB,
            candidate=after.peak / _MIB,
            unit="MiB",
            limit=f"within the budget of {_gib(planner.budget)}",
            ok=after.peak <= planner.budget,
        ),
        Figure(
            name=f"peak at {context}, measured / planned",
            baseline=before.ratio,
            candidate=after.ratio,
            limit=f"<= {_MOST:.0%}",
            ok=after.ratio <= _MOST,
        ),
        Figure(
            name=f"KV cache at {context}",
            baseline=before.planned.kv / _MIB,
            candidate=after.planned.kv / _MIB,
            unit="MiB",
            limit="the log states the planned bytes",
            ok=not after.contradiction,
        ),
    )


def _notes(found: dict[Side, list[Peak]]) -> tuple[str, ...]:
    candidate = found["candidate"]
    notes = [f"measured by {candidate[0].source}; the highest figures of a server's processes are added"]
    notes += [
        f"{side} at {one.planned.context}: {one.filled} tokens were read" for side in SIDES for one in found[side]
    ]
    if low := [one for one in candidate if one.ratio < 2 - _MOST]:
        notes.append(f"the plan is too high: {low[0].ratio:.0%} of it were used at {low[0].planned.context}")
    first, last = candidate[0], candidate[-1]
    if first is not last:
        measured, planned = last.peak - first.peak, last.planned.total - first.planned.total
        notes.append(
            f"growth from {first.planned.context} to {last.planned.context} tokens: {measured / _MIB:.0f} MiB, planned "
            f"{planned / _MIB:.0f}"
        )
    return tuple(notes)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _plot(found: dict[Side, list[Peak]]) -> Plot:
    lines = []
    for side in SIDES:
        contexts = tuple(float(one.planned.context) for one in found[side])
        planned = tuple(one.planned.total / _MIB for one in found[side])
        lines.append(Line(name=side, x=contexts, y=tuple(one.peak / _MIB for one in found[side])))
        lines.append(Line(name=f"{side}, planned", x=contexts, y=planned))
    return Plot(title="memory", x="context", y="MiB", lines=tuple(lines))
