"""The session: its conversation on both programs, the search for a rise, mechanical faults, and the verdict."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.validation.conftest import MakePlan, MakeTrial
from toolchain.core.errors import ServerFailed
from toolchain.models.compatibility.trial import position_divergence
from toolchain.validation import result
from toolchain.validation.trial import Trial
from toolchain.validation.trials import degradation, session
from toolchain.validation.trials.conversation import Size, Turn, answered, questions, read_along
from toolchain.validation.trials.degradation import Turning
from toolchain.validation.trials.faults import faults

SMALL = Size(turns=2, tokens=12, positions=3)


def turn(answer: str, stop: str = "eos") -> Turn:
    return Turn(
        phase="test",
        user="?",
        dropped=0,
        prompt_sha256="",
        answer=answer,
        ids=(),
        pieces=(),
        stop=stop,
        read=0,
        seconds=0.0,
    )


def steady(seed: int, *, size: float = 0.05, spread: float = 0.4, slope: float = 1.0) -> list[Turning]:
    """Fifty turns of a setting that stays as it is, in a text that becomes certain: uncertainty falls tenfold."""
    rng = np.random.default_rng(seed)
    u = 0.4 * np.exp(-2.3 * np.arange(50) / 50 + rng.normal(0, 0.3, 50))
    kl = size * u**slope * np.exp(rng.normal(0, spread, 50))
    return [Turning(kl=float(a), uncertainty=float(b)) for a, b in zip(kl, u, strict=True)]


def worse(turns: list[Turning], by: float, at: int) -> list[Turning]:
    """From turn `at`, from 1, on the KL is so many times as large."""
    return [replace(one, kl=one.kl * by) if number >= at else one for number, one in enumerate(turns, 1)]


def test_there_are_fifty_turns_in_five_phases_and_the_seed_chooses_their_words() -> None:
    found = questions(1)
    assert Counter(one.phase for one in found) == dict.fromkeys(
        ("generate", "debug", "refactor", "test", "iterate"), 10
    )
    assert found == questions(1)
    assert found != questions(2)
    assert not [one for one in found if "{" in one.text]


@pytest.mark.parametrize("sharpness", [0.5, 6.0])
def test_the_same_errors_of_the_logits_cost_the_same_at_equal_uncertainty(sharpness: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, sharpness, (1000, 50))
    exact, rough = (
        [
            {str(name): float(value) for name, value in enumerate(row)}
            for row in one - np.log(np.exp(one).sum(1)[:, None])
        ]
        for one in (logits, logits + rng.normal(0, 0.1, logits.shape))
    )
    kl = sum(position_divergence(a, b) for a, b in zip(exact, rough, strict=True))
    assert kl / sum(map(degradation.uncertainty, exact)) == pytest.approx(0.1**2 / 2, rel=0.15)


@pytest.mark.parametrize(("size", "slope"), [(0.003, 1.0), (0.05, 1.0), (0.6, 0.2)])
def test_a_steady_setting_is_seldom_called_degraded_however_large_its_errors(size: float, slope: float) -> None:
    alarms = sum(degradation.rise(steady(seed, size=size, slope=slope)).degraded for seed in range(30))
    assert alarms <= 1  # of 30; one in seventeen is expected


def test_rounding_is_no_degradation_though_it_grows() -> None:
    assert not degradation.rise([Turning(kl=1e-7 * (1 + at), uncertainty=0.3) for at in range(50)]).degraded
    assert not degradation.rise([Turning(kl=0.0, uncertainty=0.0)] * 50).degraded


@pytest.mark.parametrize("at", [12, 25, 44])
def test_a_rise_is_found_at_its_turn_though_the_kl_itself_falls(at: int) -> None:
    for seed in range(10):
        found = degradation.rise(worse(steady(seed), 4, at))
        assert found.degraded
        assert abs(found.turn - at) <= 3
        assert found.factor > 2


def test_a_creeping_growth_is_found_and_a_decline_is_none() -> None:
    turns = steady(7, size=0.01)
    assert degradation.rise([replace(one, kl=one.kl * (1 + at / 6)) for at, one in enumerate(turns)]).degraded
    assert not degradation.rise([replace(one, kl=one.kl / (1 + at / 6)) for at, one in enumerate(turns)]).degraded


def test_a_rise_is_noticed_a_few_turns_after_it() -> None:
    noticed = degradation.noticed(worse(steady(2), 8, 25))
    assert noticed is not None
    assert 25 <= noticed <= 31


def test_levels_are_those_at_the_mean_uncertainty() -> None:
    found = degradation.levels(steady(1, spread=0.0))
    assert found == pytest.approx([found[0]] * 50, rel=0.05)


@pytest.mark.parametrize(
    ("answer", "stop", "found"),
    [
        ("", "eos", ("empty",)),
        ("The sum is 3.", "eos", ()),
        ("and so on and so on and so on and so on and so on", "limit", ("loop",)),
        ("| a | b |\n|---|---|---|---|---|---|---|---|---|---|---|---|", "eos", ()),
        ("```python\nx = 1", "eos", ("fence",)),
        ("```python\nx = 1", "limit", ()),
        ('```json\n{"a": 1,}\n```', "eos", ("json",)),
        ('```json\n{"a": 1}\n```', "eos", ()),
        ('{"a": ', "eos", ("json",)),
        ('{"a": ', "limit", ()),
        ("Das ist 这是一个完全不同的语言", "eos", ("language",)),
    ],
)
def test_mechanical_faults(answer: str, stop: str, found: tuple[str, ...]) -> None:
    assert faults([turn(answer, stop)], 0) == found


def test_the_same_answer_again_is_a_fault() -> None:
    said = turn("Yes, that is certainly what I would do.")
    assert faults([said, said], 1) == ("repeated",)
    assert faults([turn("Yes."), turn("Yes.")], 1) == ()


def test_more_faults_by_chance() -> None:
    assert session.more_often(0, 0, 50) == 1
    assert session.more_often(0, 5, 50) == pytest.approx(math.comb(50, 5) / math.comb(100, 5))
    assert session.more_often(40, 45, 50) > 0.1
    assert session.more_often(20, 45, 50) < 1e-6


@pytest.mark.parametrize("backend", ["llama-server", "ollama"])
def test_an_equal_candidate_passes(backend: str, make_plan: MakePlan, make_trial: MakeTrial) -> None:
    found = session.measure(make_trial(make_plan(backend=backend, candidate="q8_0")), SMALL)
    assert found.verdict == "passed"
    assert value(found, "KL, forced") == pytest.approx(0, abs=1e-9)
    assert value(found, "free answers that are the same") == 10
    assert [len(line.x) for line in found.plots[0].lines] == [10, 10]
    assert [pair.title for pair in found.pairs][::4] == ["turn 1, generate", "turn 9, iterate"]
    assert any("Ollama" in note for note in found.notes) == (backend == "ollama")


def test_an_interrupted_session_goes_on_at_its_turn(
    make_plan: MakePlan, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_TEST_NOISE", "turbo4=1")
    whole = session.measure(make_trial(make_plan(seed=1)), SMALL)
    assert value(whole, "KL, forced") > 0.01
    other = make_plan(seed=1, candidate="turbo4:turbo4", text=__file__)  # another folder of kept turns
    monkeypatch.setenv("TQ_TEST_DIE", "50")
    for _ in range(2):
        broken = make_trial(other)
        with pytest.raises(ServerFailed, match=r"broke off|scripted end"):
            session.measure(broken, SMALL)
        assert 1 <= broken.store.taken <= 49
        broken.sides.close()
    monkeypatch.delenv("TQ_TEST_DIE")
    assert session.measure(make_trial(other), SMALL) == whole


def test_a_full_context_leaves_out_the_oldest_turns_and_both_sides_read_the_same(
    make_plan: MakePlan, make_trial: MakeTrial
) -> None:
    trial = make_trial(make_plan(candidate="q8_0"))
    trial = narrowed(trial, 1024)
    with trial.progress("conversation", 30) as progress:
        turns = answered(trial, "baseline", progress, SMALL)
        read = [read_along(trial, side, turns, progress, SMALL) for side in ("baseline", "candidate")]
    left_out = [one.dropped for one in turns]
    assert 0 < left_out[-1] < 9
    assert left_out == sorted(left_out)
    assert len(set(left_out)) <= 4  # half of the context at a time
    assert [one.positions for one in read[0]] == [one.positions for one in read[1]]


def narrowed(trial: Trial, context: int) -> Trial:
    """The trial with a model of such a context."""
    plan = replace(trial.plan, trained_context=context)
    trial.sides.plan = plan
    return replace(trial, plan=plan)


def value(found: result.TestResult, name: str) -> float:
    """The candidate's figure of that name."""
    figure = next(one for one in found.figures if one.name == name)
    assert figure.candidate is not None
    return figure.candidate
