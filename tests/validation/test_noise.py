"""The noise script counts what strayed."""

from __future__ import annotations

import pytest

from tests.validation import noise
from toolchain.core.run import Run
from toolchain.validation import result as kinds
from toolchain.validation.matrix import TESTS
from toolchain.validation.trial import Trial


def _by_seed(trial: Trial) -> kinds.TestResult:
    value = float(trial.plan.seed)
    figure = kinds.Figure(name="loss", candidate=value, limit="<= 2", ok=value <= 2)
    verdict: kinds.Verdict = "passed" if value <= 2 else "failed"
    voids = ("on battery",) if value == 1 else ()
    return kinds.TestResult(test="by seed", verdict=verdict, summary="measured", figures=(figure,), voids=voids)


def test_what_strayed_is_counted(
    run: Run, model: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TESTS, "by seed", _by_seed)
    words = ["--model", str(model), "--set", f"workspace={run.workspace}", "--contexts", "512"]
    assert noise.main([*words, "--tests", "checklist,by seed", "--runs", "3"]) == 2
    said = capsys.readouterr().out
    assert "seed 1: void\n  by seed void: on battery\nseed 2: not decided\nseed 3: try another setting\n" in said
    assert "  by seed failed: measured\n  by seed: loss 3.0 (<= 2)\n" in said
    assert "decisions: 1 x void, 1 x not decided, 1 x try another setting\n" in said
    assert "checklist: 3 x passed" in said
    assert "  loss: 1 to 3, median 2 (<= 2: missed 1 of 3)\n2 of 3 runs strayed\n" in said


def test_a_run_that_fails_counts(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "nowhere.gguf", "--set", f"workspace={run.workspace}", "--runs", "1"]
    assert noise.main(words) == 1
    assert "seed 1: ConfigError: nowhere.gguf: no such model" in capsys.readouterr().out
