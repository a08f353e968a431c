"""Speed in pairs, on servers that wait before each token."""

from __future__ import annotations

import dataclasses

import pytest

from tests.validation.calm import QUIET, calmly
from tests.validation.conftest import MakePlan, MakeTrial
from toolchain.validation import pairs, result
from toolchain.validation.trials import coldload, speed
from toolchain.validation.voids import accepted

LOADED = dataclasses.replace(QUIET, foreign_cpu=0.6)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens and pairs, and no loads, so that the tests take little time."""
    monkeypatch.setattr(speed, "TOKENS", 10)
    monkeypatch.setattr(speed, "_MOST", 4)
    monkeypatch.setattr(
        coldload, "measure", lambda *_: result.TestResult(test="load", verdict="passed", summary="not measured here")
    )


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair decides, and a disturbed one ends the run."""
    monkeypatch.setattr(pairs, "LEAST", 1)
    monkeypatch.setattr(pairs, "_DISTURBED", 1)
    monkeypatch.setattr(speed, "_MOST", 1)


def figure(found: result.TestResult, name: str) -> result.Figure:
    return next(one for one in found.figures if one.name == name)


def test_a_slow_type_is_killed(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    plan = make_plan(contexts=[512])
    slow = dataclasses.replace(plan, environment={"TQ_TEST_DELAY": "f16=0.004 turbo4=0.03"})
    found = speed.measure(calmly(make_trial(slow)))
    assert (found.verdict, found.voids) == ("kill", ())
    ratio = figure(found, "generation at 256, ratio")
    assert ratio.candidate
    assert 0 < ratio.candidate < 0.75
    assert ratio.ok is False
    assert figure(found, "between tokens, median at 256").candidate >= 40  # type: ignore[operator]


def test_equal_sides_pass_and_every_try_is_kept(
    make_plan: MakePlan, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_TEST_DELAY", "f16=0.01")
    monkeypatch.setattr(speed, "_SLOWEST", 0.5)  # a busy machine must not decide this test
    monkeypatch.setattr(speed, "_FIRST", 5.0)
    plan = make_plan(candidate="f16", contexts=[512])
    trial = calmly(make_trial(plan))
    found = speed.measure(trial)
    assert (found.verdict, found.voids) == ("passed", ())
    cells = [key for key in list(trial.store.keys()) if key.startswith("speed/512/")]
    assert len(cells) >= 4
    again = calmly(make_trial(plan))
    assert speed.measure(again) == found
    assert again.store.taken == 0


def test_a_load_by_others_voids_it_until_it_is_gone_or_accepted(
    make_plan: MakePlan, make_trial: MakeTrial, few: None
) -> None:
    plan = make_plan(contexts=[512])
    found = speed.measure(calmly(make_trial(plan), LOADED))
    assert found.voids == ("load: other programs had 60% of the CPU (at most 10%)",)
    accepting = dataclasses.replace(calmly(make_trial(plan), LOADED), accepted=frozenset({"load"}))
    taken = accepted(speed.measure(accepting), accepting.accepted)
    assert taken.voids == ()
    assert f"void, accepted by the operator: {found.voids[0]}" in taken.notes
    assert speed.measure(calmly(make_trial(plan))).voids == ()


@pytest.mark.parametrize("backend", ["llama-server", "ollama"])
def test_prompts_from_a_cache_void_it(backend: str, make_plan: MakePlan, make_trial: MakeTrial, few: None) -> None:
    plan = make_plan(backend=backend, contexts=[512])
    found = speed.measure(calmly(make_trial(dataclasses.replace(plan, environment={"TQ_TEST_CACHED": "1"}))))
    assert all(why.startswith("cache: ") and "of a prompt came from a cache" in why for why in found.voids)
    assert found.voids
