"""Changed prompts, and scores of REFRACT's kind, on the doubles."""

from __future__ import annotations

import math

import pytest

from tests.validation.conftest import MakePlan, MakeTrial
from toolchain.validation.llama_endpoint import LlamaEndpoint
from toolchain.validation.needles import SHARES, Share, Shares
from toolchain.validation.trials import perturbation, refract, starts
from toolchain.validation.trials.perturbation import PromptDrift
from toolchain.validation.trials.trajectory import Compared


def test_what_a_question_is_changed_to() -> None:
    """All kinds, each of them a change, and every typo keeps the letters."""
    kinds = {kind for one in starts.QUESTIONS for kind, _ in one.variants()}
    assert kinds == {"typo", "case", "space", "paraphrase", "order", "name"}
    for question in starts.QUESTIONS:
        made = dict(question.variants())
        assert question.text not in made.values()
        assert sorted(made["typo"]) == sorted(question.text)


def test_distances() -> None:
    assert perturbation.distance("kitten", "sitting") == 3
    assert perturbation.distance("", "abc") == perturbation.distance("abc", "") == 3
    assert perturbation.distance("abc", "abc") == 0


def _drift(question: str, baseline: float, candidate: float) -> PromptDrift:
    return PromptDrift(question=question, change="typo", baseline=baseline, candidate=candidate)


def test_the_error_is_over_questions() -> None:
    """Six changes of two questions are two measurements."""
    found = perturbation.by_question([_drift("a", 0.2, 0.4)] * 3 + [_drift("b", 0.2, 0.2)] * 3)
    assert found.mean == pytest.approx(0.1)
    assert found.error == pytest.approx(0.1)


@pytest.mark.slow
def test_changed_prompts_on_both_sides(
    make_plan: MakePlan, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without noise there is no excess; answers are kept, and the scores are made of them."""
    monkeypatch.setattr(starts, "QUESTIONS", starts.QUESTIONS[:2])
    monkeypatch.setattr(perturbation, "TOKENS", 6)
    # The double predicts by the last bytes alone, which a template's end would make all the same.
    monkeypatch.setattr(LlamaEndpoint, "chat", lambda _, messages: messages[0].content)
    trial = make_trial(make_plan(tests=["perturbation", "refract"]))
    found = perturbation.measure(trial)
    figures = {one.name: one for one in found.figures}
    assert (found.verdict, figures["excess drift"].candidate, figures["excess drift"].ok) == ("reported", 0, True)
    assert figures["drift"].baseline == figures["drift"].candidate
    assert figures["drift"].baseline
    assert [row[:2] for row in found.tables[0].rows] == [
        ("typo", "2"),
        ("case", "2"),
        ("space", "2"),
        ("paraphrase", "2"),
        ("order", "1"),
        ("name", "1"),
    ]
    taken = trial.store.taken
    trial.kept(SHARES, Shares, lambda: Shares(cells=(Share(baseline=1, candidate=0.5),)))
    scored = refract.measure(trial)
    assert scored.summary == f"{2 / (1 / 100 + 1 / 50):.1f}, DEGRADED, without trajectory, KLD"
    assert trial.store.taken == taken + 1


def test_scores_are_those_of_refract() -> None:
    def walked(departs: int | None) -> Compared:
        return Compared(name="", baseline="", candidate="", departs=departs, length=10, equal=1, kl=(), same_top=1)

    found = refract.scores(
        walked=[walked(5), walked(None)],
        kl=0.1,
        needles=[Share(baseline=1, candidate=0), Share(baseline=0, candidate=1)],
        drifts=[_drift("a", 0.2, 0.4), _drift("a", 0.4, 0.2)],
    )
    assert (found.trajectory, found.needle) == (75, 50)
    assert found.kld == pytest.approx(100 * math.exp(-0.1))
    assert found.perturbation == pytest.approx(50 * (math.exp(-1) + 1))
    parts = [75, 50, 100 * math.exp(-0.1), 50 * (math.exp(-1) + 1)]
    assert found.whole == pytest.approx(4 / sum(1 / one for one in parts))
    assert [refract.band(score) for score in (90, 80, 60, 59.9)] == ["EXCELLENT", "PASS", "DEGRADED", "FAIL"]


def test_without_an_axis_there_is_no_score(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    assert refract.measure(make_trial(make_plan(tests=["refract"]))).verdict == "not asked"
