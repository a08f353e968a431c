"""The task `validate.judge`: on a terminal, with a list, and with neither."""

from __future__ import annotations

import io
import os
import pty
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.validation.conftest import MakePlan
from toolchain.core import records
from toolchain.core.errors import ConfigError
from toolchain.core.run import Run
from toolchain.core.validation_errors import TryAnotherSetting, Undecided
from toolchain.tasks.flags import Names
from toolchain.tasks.validate import judge
from toolchain.validation import result as results
from toolchain.validation import validation
from toolchain.validation.judgement import Judgement
from toolchain.validation.result import Pair, Report

KEYS = ("1", "2", "3")


@pytest.fixture
def file(run: Run, make_plan: MakePlan) -> Path:
    """result.json of a validation with three pairs, the third of which is equal."""
    report = validation.validate(run, make_plan(tests=["checklist"]))
    pairs = tuple(
        Pair(key=key, title=f"category {key}", prompt="Why?", baseline="old", candidate="old" if key == "3" else "new")
        for key in KEYS
    )
    asked = results.TestResult(test="prompts", verdict="undecided", summary="", pairs=pairs)
    path = validation.located(run, "")
    records.write(path, replace(report, results=(*report.results, asked)))
    return path


def test_a_terminal_is_asked_and_keeps_what_was_answered(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"s\nq\n")
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(Undecided, match="no verdict on 2 yet"):
            judge(run)
    os.close(ours)
    said = capfd.readouterr().err
    assert "1 of 2: category 1" in said
    assert "2 of 2: category 2" in said
    assert "category 3" not in said  # equal answers need no verdict
    assert {key: one.verdict for key, one in Judgement.read(file.parent).verdicts.items()} == {"1": "same"}


def test_a_list_is_entered_and_judges_the_gate(run: Run, file: Path) -> None:
    with pytest.raises(TryAnotherSetting, match="2 of 3 no worse, 1 of them word for word the same, 1 worse"):
        judge(run, verdicts=Names(("1=worse", "2=better")))
    found = records.read(file, Report)
    assert (found.results[-1].verdict, found.decision.answer) == ("failed", "try another setting")
    assert [one.verdict for one in found.results[-1].pairs] == ["worse", "better", "same"]


@pytest.mark.parametrize(
    ("verdicts", "run_", "message"),
    [
        ([], "", "there is no terminal to ask for verdicts"),
        (["4=same"], "", "there is no pair '4'"),
        (["1=same"], "elsewhere", "no validation elsewhere"),
    ],
)
def test_bad_input_is_one_error_and_changes_nothing(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch, verdicts: list[str], run_: str, message: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=message):
        judge(run, run_=run_, verdicts=Names(verdicts))
    assert file.read_bytes() == before
    assert not Judgement.read(file.parent).verdicts


def test_a_validation_without_prompts_has_nothing_to_judge(run: Run, make_plan: MakePlan) -> None:
    validation.validate(run, make_plan(tests=["checklist"]))
    with pytest.raises(ConfigError, match="has no answers to judge"):
        judge(run, verdicts=Names(("1=same",)))
