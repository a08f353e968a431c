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

from ..core.errors import ToolchainError
from ..core.validation_errors import FixFirst, RunVoid, SettingKilled, TryAnotherSetting, Undecided
from .result import Answer, Decision, TestResult

NEEDED = ("checklist", "perplexity", "attention", "needle", "prompts", "speed", "memory")
"""tests without which the gate does not let a setting pass; `checklist` is the release's own verification"""

_NEXT: dict[Answer, str] = {
    "proceed": "./inv deploy.install, with this cache type",
    "try another setting": "K at q8_0 (--candidate q8_0:TYPE), a finer type, or ./inv validate.tune",
    "fix first": "./inv verify; build again, then validate again",
    "kill": "take a finer type: ./inv validate.tune says which one fits the memory",
    "not decided": "run the tests that are missing, and enter the verdicts on the prompts: ./inv validate.judge",
    "void": "remove what disturbed the run, and run the same command again; --accept-void KIND takes it as it is",
}
_ERRORS: dict[Answer, type[ToolchainError]] = {
    "try another setting": TryAnotherSetting,
    "fix first": FixFirst,
    "kill": SettingKilled,
    "not decided": Undecided,
    "void": RunVoid,
}


def decide(results: Sequence[TestResult]) -> Decision:
    """The decision on the results of one validation."""
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
            return Decision(answer=answer, reasons=tuple(reasons), next=_NEXT[answer])
    passed = [one.test for one in results if one.verdict == "passed"]
    return Decision(answer="proceed", reasons=(f"passed: {', '.join(passed)}",), next=_NEXT["proceed"])


def failure(decision: Decision) -> ToolchainError | None:
    """The error that a run with this decision ends with; None to proceed."""
    error = _ERRORS.get(decision.answer)
    return error("\n  ".join((decision.answer, *decision.reasons)), hint=decision.next) if error else None


def _said(results: Sequence[TestResult], verdict: str) -> list[str]:
    return [f"{one.test}: {one.summary}" for one in results if one.verdict == verdict]
