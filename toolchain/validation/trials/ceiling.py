"""The largest context that the server really has on this machine, by binary search.

The model's trained context is tried first, then what the memory planner allows, then the middle of what is left. A try
starts the server with the context, reads a batch and generates; it is not made when the plan exceeds the memory that is
available now, and its server is killed as soon as the machine comes under memory pressure. So the search stops before
the machine suffers. A context is too large when it was refused, failed, was under pressure, or took more than the
budget.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import psutil

from ...core.errors import ArchitectureUnknown, ModelLoadFailed, ServerFailed, ToolchainError
from ...core.records import record
from ...host.pressure import MemoryPressure
from ...models.memory.plan import GIB
from ...serving.cachelog import stated
from ..endpoint import Endpoint
from ..guard import Guard
from ..plan import SIDES, Side
from ..planned import Planned, Planner
from ..result import Figure, Table, TestResult, Verdict
from ..trial import Trial
from .memory import Sampled

NAME = "ceiling"
GOAL, LEAST = 65536, 32768
"""tokens: the target, and what ends a setting when the memory does not reach for it"""
_STEP = 1024
_NEAR = 32
"""the search ends when the distance is below this part of the model's context"""
_PROMPT = "The committee met again on Tuesday to read the long report on the harbour. " * 60
_TOKENS = 4
Outcome = Literal["fits", "over the budget", "planned over the available memory", "memory pressure", "failed"]


@record
class Attempt:
    """One context. `peak` is in bytes, 0 when it did not start; `why` says how it failed."""

    planned: Planned
    outcome: Outcome
    why: str
    peak: int


@record
class _Found:
    """The largest context that fits, and the attempts on the way."""

    ceiling: int
    attempts: tuple[Attempt, ...]


def measure(trial: Trial) -> TestResult:
    """Both sides, one server at a time."""
    if trial.plan.baseline_url:
        return TestResult(test=NAME, verdict="not asked", summary="only servers that the validation starts are tried")
    try:
        planner = Planner(trial)
    except ArchitectureUnknown as error:
        return TestResult(test=NAME, verdict="not asked", summary=error.message)
    with trial.progress("ceiling", len(SIDES)) as progress:

        def attempt(side: Side, context: int) -> Attempt:
            if not trial.store.has(f"ceiling/{side}/{trial.plan.trained_context}"):
                trial.at(side, trial.plan.contexts[0])  # a model that does not load at all is no matter of its context
            progress.advance(f"{side} at {context}")
            return trial.kept(f"ceiling/{side}/{context}", Attempt, lambda: _attempt(trial, planner, side, context))

        found = {
            side: _search(trial.plan.trained_context, planner.largest(side), partial(attempt, side)) for side in SIDES
        }
    return _judged(trial, planner, found)


def _search(trained: int, planned: int, attempt: Callable[[int], Attempt]) -> _Found:
    """The largest context that fits, to a step: the model's own, else by bisection from the planned one on."""
    made: dict[int, Attempt] = {}

    def fits(context: int) -> bool:
        made[context] = attempt(context)
        return made[context].outcome == "fits"

    low, high, guess = 0, trained, planned // _STEP * _STEP
    if fits(trained):
        low = trained
    while high - low > max(_STEP, trained // _NEAR):
        middle = guess if low < guess < high else max(low, (low + high) // 2 // _STEP * _STEP)
        guess = 0
        if middle == low:
            break
        low, high = (middle, high) if fits(middle) else (low, middle)
    return _Found(ceiling=low, attempts=tuple(made[context] for context in sorted(made)))


def _attempt(trial: Trial, planner: Planner, side: Side, context: int) -> Attempt:
    planned = planner.at(side, context)
    for one in SIDES:
        trial.sides.stop(one)
    available = psutil.virtual_memory().available
    if planned.total > available:
        why = f"{planned.total / GIB:.1f} GiB planned, {available / GIB:.1f} available"
        return Attempt(planned=planned, outcome="planned over the available memory", why=why, peak=0)
    peak, failure = 0, ""
    with Guard(trial.pressure or MemoryPressure()) as guard:
        try:
            endpoint = trial.at(side, context)
            with Sampled(endpoint.pid) as sampled:
                endpoint.generate(_PROMPT[: context // 2], tokens=_TOKENS, reuse=False)
                guard.look()
            peak, failure = sampled.peak, _smaller(endpoint)
        except ToolchainError as error:
            if not guard.tripped and not isinstance(error, ModelLoadFailed | ServerFailed):
                raise
            failure = error.message.strip().splitlines()[0]
        finally:
            trial.sides.stop(side)
    if guard.tripped:
        return Attempt(planned=planned, outcome="memory pressure", why=guard.tripped, peak=peak)
    if failure:
        return Attempt(planned=planned, outcome="failed", why=failure, peak=peak)
    if peak > planner.budget:
        why = f"{peak / GIB:.1f} GiB of {planner.budget / GIB:.1f}"
        return Attempt(planned=planned, outcome="over the budget", why=why, peak=peak)
    return Attempt(planned=planned, outcome="fits", why="", peak=peak)


def _smaller(endpoint: Endpoint) -> str:
    """That the server took a smaller context than it was asked for; empty if it did not."""
    assert endpoint.log
    cells = max((one.proof.cells for one in stated(endpoint.log.read_text(errors="replace"))), default=0)
    return "" if cells >= endpoint.context else f"asked for {endpoint.context} tokens, the cache has {cells}"


def _judged(trial: Trial, planner: Planner, found: dict[Side, _Found]) -> TestResult:
    trained, reached = trial.plan.trained_context, found["candidate"].ceiling
    goal = min(GOAL, trained)
    verdict: Verdict = "passed" if reached >= goal else "kill" if reached < LEAST <= trained else "failed"
    whose = ", the model's own context" if reached == trained else ""
    rows = tuple(
        (
            side,
            str(one.planned.context),
            one.outcome,
            one.why,
            f"{one.planned.total / GIB:.2f}",
            f"{one.peak / GIB:.2f}",
        )
        for side in SIDES
        for one in found[side].attempts
    )
    return TestResult(
        test=NAME,
        verdict=verdict,
        summary=f"{reached} tokens{whose}; the baseline reaches {found['baseline'].ceiling}",
        figures=(
            Figure(
                name="largest context",
                baseline=found["baseline"].ceiling,
                candidate=reached,
                unit="tokens",
                limit=f">= {goal}" + (", which the model was trained on" if goal == trained < GOAL else ""),
                ok=reached >= goal,
            ),
        ),
        notes=(
            f"the plan's ceiling within {planner.budget / GIB:.1f} GiB: {planner.largest('candidate')} tokens",
            "each try read a short prompt; the memory test fills its contexts",
        ),
        tables=(
            Table(title="tries", header=("side", "context", "outcome", "why", "planned, GiB", "peak, GiB"), rows=rows),
        ),
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
