"""The gate: from the tests' verdicts to one decision.

    the checklist or the attention test broken    fix first: trust no measurement
    any figure beyond a limit that ends it        kill
    a threshold missed                            try another setting
    anything void                                 void
    a needed test or a human's verdict missing    not decided
    else                                          proceed

The order is that of what a reader has to do first. A kill needs a sound build: where the build is broken, too, that
comes first. A test that something disturbed counts for none of these; but what disturbed it takes nothing from what
the others found.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..core.cachetypes.grammar import parse
from ..core.errors import ToolchainError
from ..core.validation_errors import FixFirst, RunVoid, SettingKilled, TryAnotherSetting, Undecided
from ..core.variables import CALIBRATION
from .plan import Plan
from .result import Answer, Decision, TestResult

NEEDED = ("checklist", "perplexity", "attention", "needle", "prompts", "speed", "memory")
"""tests without which the gate does not let a setting pass; `checklist` is the release's own verification"""

_NEXT: dict[Answer, str] = {
    "proceed": "./inv deploy.install, with this cache type",
    "try another setting": "a finer type, or ./inv validate.tune",
    "fix first": "./inv verify; build again, then validate again",
    "kill": "take a finer type: ./inv validate.tune says which one fits the memory",
    "not decided": "run the tests that are missing, and enter the verdicts on the prompts: ./inv validate.judge",
    "void": "remove what disturbed the run, and run the same command again; --accept-void KIND takes it as it is",
}
_FINE = ("q8_0", "f16", "bf16", "f32")
"""types of K that lose next to nothing"""
_ERRORS: dict[Answer, type[ToolchainError]] = {
    "try another setting": TryAnotherSetting,
    "fix first": FixFirst,
    "kill": SettingKilled,
    "not decided": Undecided,
    "void": RunVoid,
}


def decide(results: Sequence[TestResult], plan: Plan | None = None) -> Decision:
    """The decision on the results of one validation, with advice on the cache type of its `plan`."""
    by = {result.test: result for result in results}
    counted = [one for one in results if not one.voids]
    missing = [name for name in NEEDED if name not in by]
    ordered: list[tuple[Answer, list[str]]] = [
        ("fix first", _said(counted, "broken")),
        ("kill", _said(counted, "kill")),
        ("try another setting", _said(counted, "failed")),
        ("void", [f"{one.test}: {why}" for one in results for why in one.voids]),
        (
            "not decided",
            ([f"{', '.join(missing)}: did not run"] if missing else []) + _said(results, "undecided"),
        ),
    ]
    for answer, reasons in ordered:
        if reasons:
            advice = _finer(plan) if plan and answer == "try another setting" else []
            return Decision(answer=answer, reasons=tuple(reasons), next=", ".join([*advice, _NEXT[answer]]))
    passed = [one.test for one in results if one.verdict == "passed"]
    return Decision(answer="proceed", reasons=(f"passed: {', '.join(passed)}",), next=_NEXT["proceed"])


def failure(decision: Decision) -> ToolchainError | None:
    """The error that a run with this decision ends with; None to proceed."""
    error = _ERRORS.get(decision.answer)
    return error("\n  ".join((decision.answer, *decision.reasons)), hint=decision.next) if error else None


def _finer(plan: Plan) -> list[str]:
    """What to do about K, which most of the loss comes from, while its type leaves something to gain."""
    asked = parse(plan.cache("candidate"))
    if asked.k.base in _FINE:
        return []
    found = [f"--candidate {_FINE[0]}:{asked.v.base}"]
    return found if plan.environment.get(CALIBRATION) else ["a calibration of keys (./inv quality.calibrate)", *found]


def _said(results: Sequence[TestResult], verdict: str) -> list[str]:
    return [f"{one.test}: {one.summary}" for one in results if one.verdict == verdict]
