"""Greedy decoding on both programs' doubles."""

from __future__ import annotations

import dataclasses

import pytest

from tests.validation.conftest import MakePlan, MakeTrial
from toolchain.models.quality.measure import Estimate
from toolchain.validation.trials import starts, trajectory


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "CHATS", {"explain": starts.CHATS["explain"]})
    monkeypatch.setattr(starts, "TEXTS", {"recipe": starts.TEXTS["recipe"], "table": starts.TEXTS["table"]})
    monkeypatch.setattr(trajectory, "TOKENS", 8)


@pytest.mark.parametrize(("noise", "verdict"), [("", "passed"), ("turbo4=0.6", "kill")])
def test_forced_along_the_baselines_tokens(
    noise: str, verdict: str, make_plan: MakePlan, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without noise both sides are one, token by token; with it a difference counts at its place alone."""
    monkeypatch.setenv("TQ_TEST_NOISE", noise)
    trial = make_trial(make_plan())
    found = trajectory.measure(trial)
    figures = {one.name: one.candidate for one in found.figures}
    assert found.verdict == verdict
    assert (figures["KL, forced"] == 0) == (not noise)
    assert (figures["equal tokens, free"] == 100) == (not noise)
    forced, free = figures["same top token, forced"], figures["equal tokens, free"]
    assert forced is not None
    assert free is not None
    assert forced >= free
    assert len(found.plots[0].lines[0].x) == 8
    names = ["chat-explain", "text-recipe", "text-table"]
    assert [row[0] for row in found.tables[0].rows] == names
    walked = trial.kept(f"trajectory/baseline/{names[1]}", trajectory.Walk, pytest.fail)
    assert walked.prompt == starts.TEXTS["recipe"]
    assert len(walked.tokens) == len(walked.predictions) == 8


@pytest.mark.slow
def test_what_is_kept_is_not_asked_again(
    make_plan: MakePlan, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted before its last cell, a second run asks for that alone; the result is that of the whole run."""
    monkeypatch.setenv("TQ_TEST_NOISE", "turbo4=0.4")
    plan = make_plan()
    first = make_trial(plan)
    whole = trajectory.measure(first)
    first.store.path("trajectory/forced/text-table").unlink()
    second = make_trial(plan)
    assert trajectory.measure(second) == whole
    assert second.store.taken == 1


@pytest.mark.slow
def test_on_ollama_the_free_half_alone(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    plan = dataclasses.replace(make_plan(backend="ollama"), environment={"TQ_TEST_NOISE": "turbo4=2"})
    found = trajectory.measure(make_trial(plan))
    assert found.verdict == "reported"
    assert [one.name for one in found.figures] == ["equal tokens, free", "decodings that depart"]
    assert found.figures[1].candidate
    assert "Ollama takes no tokens" in found.notes[0]


def test_verdicts_and_departures() -> None:
    assert trajectory.judge(Estimate(mean=0.01, error=0.001)) == "passed"
    assert trajectory.judge(Estimate(mean=0.2, error=0.08)) == "failed"  # over the limit that kills, but not for sure
    assert trajectory.judge(Estimate(mean=0.2, error=0.02)) == "kill"
    assert trajectory.departure("abc", "abc") is None
    assert trajectory.departure("abc", "abd") == 2
    assert trajectory.departure("abc", "ab") == 2
