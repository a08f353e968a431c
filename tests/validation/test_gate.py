"""The decision: which verdict comes first, and what it ends with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.validation.conftest import MakePlan
from toolchain.core.errors import ToolchainError
from toolchain.core.validation_errors import FixFirst, RunVoid, SettingKilled, TryAnotherSetting, Undecided
from toolchain.core.variables import CALIBRATION
from toolchain.validation import result as kinds
from toolchain.validation.gate import NEEDED, decide, failure
from toolchain.validation.result import Answer, Verdict

GOOD = {name: kinds.TestResult(test=name, verdict="passed", summary="fine") for name in NEEDED}


def results(*changed: kinds.TestResult) -> list[kinds.TestResult]:
    return list((GOOD | {one.test: one for one in changed}).values())


def result(test: str, verdict: Verdict, *voids: str) -> kinds.TestResult:
    return kinds.TestResult(test=test, verdict=verdict, summary=f"{verdict} here", voids=voids)


BROKEN, VOID = result("attention", "broken"), result("speed", "passed", "on battery")
KILL, FAILED, OPEN = result("perplexity", "kill"), result("memory", "failed"), result("prompts", "undecided")


@pytest.mark.parametrize(
    ("changed", "answer", "reason", "error", "code"),
    [
        ([BROKEN, VOID, KILL, FAILED, OPEN], "fix first", "attention: broken here", FixFirst, 81),
        ([VOID, KILL, FAILED, OPEN], "kill", "perplexity: kill here", SettingKilled, 82),
        ([VOID, FAILED, OPEN], "try another setting", "memory: failed here", TryAnotherSetting, 80),
        ([VOID, OPEN], "void", "speed: on battery", RunVoid, 84),
        ([OPEN], "not decided", "prompts: undecided here", Undecided, 83),
        ([result("needle", "not asked"), result("session", "reported")], "proceed", "passed: checklist", None, 0),
    ],
)
def test_the_first_reason_decides(
    changed: list[kinds.TestResult], answer: Answer, reason: str, error: type[ToolchainError] | None, code: int
) -> None:
    found = decide(results(*changed))
    assert found.answer == answer
    assert found.reasons[0].startswith(reason)
    raised = failure(found)
    assert (type(raised) if raised else None) is error
    if raised:
        assert raised.exit_code == code
        assert (raised.message, raised.hint) == (f"{answer}\n  {found.reasons[0]}", found.next)


def test_every_reason_of_the_answer_is_named() -> None:
    found = decide(results(result("speed", "failed", "throttled"), result("needle", "passed", "cached")))
    assert found.reasons == ("needle: cached", "speed: throttled")
    assert decide(results(FAILED, result("speed", "failed"))).reasons == ("speed: failed here", "memory: failed here")


@pytest.mark.parametrize(
    ("candidate", "calibration", "advice"),
    [
        ("turbo4", "", "a calibration of keys (./inv quality.calibrate), --candidate q8_0:turbo4, a finer type, or"),
        ("turbo5:turbo3", "/folder", "--candidate q8_0:turbo3, a finer type, or"),
        ("q8_0:turbo4", "", "a finer type, or"),
    ],
)
def test_what_to_do_about_keys(make_plan: MakePlan, candidate: str, calibration: str, advice: str) -> None:
    plan = replace(make_plan(), candidate=candidate, environment={CALIBRATION: calibration})
    assert decide(results(FAILED), plan).next == f"{advice} ./inv validate.tune"


def test_a_needed_test_that_did_not_run_is_not_decided() -> None:
    for name in NEEDED:
        found = decide([one for one in results() if one.test != name])
        assert (found.answer, found.reasons) == ("not decided", (f"{name}: did not run",))
    assert decide([]).reasons == (f"{', '.join(NEEDED)}: did not run",)
