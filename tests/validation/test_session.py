"""The session: its conversation on both programs, the search for a rise, mechanical faults, and the verdict."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.validation.conftest import MakePlan, MakeTrial
from toolchain.core.errors import ServerFailed
from toolchain.validation import result
from toolchain.validation.trial import Trial
from toolchain.validation.trials import degradation, session
from toolchain.validation.trials.conversation import Size, Turn, answered, divergence, questions, read_along
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


def levels(seed: int, *, base: float = 0.03, spread: float = 0.5, turns: int = 50) -> list[float]:
    """A steady setting: levels that vary by half of themselves from turn to turn."""
    return [float(one) for one in base * np.exp(np.random.default_rng(seed).normal(0, spread, turns))]


def test_there_are_fifty_turns_in_five_phases_and_the_seed_chooses_their_words() -> None:
    found = questions(1)
    assert Counter(one.phase for one in found) == dict.fromkeys(
        ("generate", "debug", "refactor", "test", "iterate"), 10
    )
    assert found == questions(1)
    assert found != questions(2)
    assert not [one for one in found if "{" in one.text]


def test_a_level_does_not_depend_on_how_certain_the_text_is() -> None:
    rng = np.random.default_rng(3)
    found = []
    for sharpness in (0.5, 6.0):
        logits = rng.normal(0, sharpness, (2000, 50))
        disturbed = logits + rng.normal(0, 0.1, logits.shape)
        exact, rough = (one - np.log(np.exp(one).sum(1, keepdims=True)) for one in (logits, disturbed))
        told = [{str(name): float(value) for name, value in enumerate(row)} for row in exact]
        others = [{str(name): float(value) for name, value in enumerate(row)} for row in rough]
        kl = [divergence(a, b) for a, b in zip(told, others, strict=True)]
        found.append(degradation.level(kl, [degradation.uncertainty(one) for one in told]))
    assert found == pytest.approx([0.005, 0.005], rel=0.1)  # half of 0.1 squared


def test_a_steady_setting_is_seldom_called_degraded_however_large_its_level() -> None:
    alarms = sum(degradation.rise(levels(seed, base=10.0 ** (seed % 4 - 3))).degraded for seed in range(100))
    assert alarms <= 3  # of 100; one in two hundred is expected


def test_rounding_is_no_degradation_though_it_grows() -> None:
    assert not degradation.rise([1e-7 * (1 + at) for at in range(50)]).degraded
    assert not degradation.rise([0.0] * 50).degraded


@pytest.mark.parametrize("at", [12, 25, 44])
def test_a_rise_is_found_at_its_turn(at: int) -> None:
    for seed in range(20):
        steady = levels(seed)
        found = degradation.rise([*steady[: at - 1], *(4 * one for one in steady[at - 1 :])])
        assert found.degraded
        assert abs(found.turn - at) <= 4
        assert found.factor > 2


def test_a_creeping_growth_is_found_and_a_decline_is_none() -> None:
    grown = [one * (1 + 5 * at / 50) for at, one in enumerate(levels(7))]
    assert degradation.rise(grown).degraded
    assert not degradation.rise(grown[::-1]).degraded
    noticed = degradation.noticed([*levels(2)[:24], *(8 * one for one in levels(2)[24:])])
    assert noticed is not None
    assert 25 <= noticed <= 32


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
