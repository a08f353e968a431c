"""The attention test: a sound build, broken ones, and where it cannot be asked."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.validation import attention_program
from tests.validation.conftest import ROOT, TYPES, MakePlan, MakeTrial
from toolchain.core.errors import StateInvalid
from toolchain.core.run import Run
from toolchain.models.quality.fidelity import LayerFidelity
from toolchain.validation.plan import Plan
from toolchain.validation.trials import attention
from toolchain.validation.trials.attention_verdict import judge, limit

LAYER = LayerFidelity(
    layer=0,
    type_k="turbo4",
    type_v="turbo4",
    queries=64,
    heads=(0.997, 0.996),
    deviation=0.0002,
    through=0.995,
    k_error=0.0043,
    k_reference=0.0043,
    v_error=0.0043,
    v_reference=0.0043,
    k_energy=1.0,
    v_energy=1.0,
    empty=False,
    kernel=0.0001,
)


@pytest.fixture
def plan(make_plan: MakePlan, run: Run, tmp_path: Path) -> Plan:
    """q4_0 against f16 on a short text, of a release that has turbo-dump and turbo-probe."""
    for name, words in (
        ("turbo-dump", ["-m", "tests.validation.attention_program"]),
        ("turbo-probe", ["-S", "-c", attention_program.DECODE]),
    ):
        program = run.workspace / "releases" / "9.9.9-turbo1-abc" / "lib" / "ollama" / name
        command = shlex.join([sys.executable, *words])
        program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {command} "$@"\n')
        program.chmod(0o755)
    text = tmp_path / "text"
    text.write_text("What the model reads. " * 48)
    return make_plan(candidate="q4_0", text=str(text))


@pytest.mark.slow
def test_a_sound_build_passes_and_what_was_measured_is_kept(plan: Plan, make_trial: MakeTrial) -> None:
    trial = make_trial(plan)
    found = attention.measure(trial)
    assert (found.verdict, len(found.tables[0].rows)) == ("passed", 4)
    figures = {figure.name: figure for figure in found.figures}
    assert figures["error of stored K in the first layer, over the reference quantizer's"].candidate == pytest.approx(
        1, abs=0.01
    )
    assert 0.9914 < (figures["attention weights, worst layer"].candidate or 0) < 0.9999
    assert figures["error of attention's result, worst layer"].candidate == pytest.approx(0, abs=1e-6)
    again = make_trial(plan)
    assert attention.measure(again) == found
    assert again.store.taken == 0
    trial.store.path("attention/candidate").with_suffix(".npz").write_bytes(b"PK")
    with pytest.raises(StateInvalid, match="is not what was kept"):
        attention.measure(again)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "verdict", "words"),
    [
        ("levels", "broken", "K of layer 0 (q4_0): error 0.04"),
        ("values", "broken", "V of layer 2 (q4_0): error 1 of the stored numbers"),
        ("attention", "broken", "of what attention makes of the stored numbers"),
        ("none", "not asked", "not every layer computes flash attention"),
    ],
)
def test_a_broken_build_is_noticed(
    plan: Plan, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, fault: str, verdict: str, words: str
) -> None:
    monkeypatch.setenv("TQ_TEST_FAULT", fault)
    found = attention.measure(make_trial(plan))
    assert (found.verdict, words in found.summary) == (verdict, True), found.summary


@pytest.mark.slow
def test_without_queries_keys_are_compared_alone(plan: Plan, make_trial: MakeTrial) -> None:
    assert plan.release_dir is not None
    (plan.release_dir / "lib" / "ollama" / "turbo-dump").unlink()
    found = attention.measure(make_trial(plan))
    assert found.verdict == "not asked"
    assert "the release has no turbo-dump" in found.summary
    assert 0.1 < (found.figures[0].candidate or 0) < 0.9999


def test_it_is_not_asked_of_ollama_and_of_servers_that_were_given(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    url = "http://127.0.0.1:9"
    for given, words in (
        ({"backend": "ollama"}, "Ollama"),
        ({"baseline_url": url, "candidate_url": url}, "not started"),
    ):
        found = attention.measure(make_trial(make_plan(**given)))
        assert (found.verdict, words in found.summary) == ("not asked", True)


def test_a_coarser_type_is_asked_for_less() -> None:
    limits = [limit(name, TYPES) for name in ("q8_0", "turbo4", "q4_0", "turbo3", "turbo2")]
    assert limits == pytest.approx([0.995, 0.995, 0.9913, 0.9792, 0.9151], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "passed"),
        ({"heads": (0.9946, 0.9946)}, "passed"),  # within twice its standard error
        ({"heads": (0.9946, 0.9944)}, "failed"),
        ({"k_error": 0.0045}, "passed"),
        ({"k_error": 0.0047}, "passed"),  # the runs drift apart
        ({"layer": 0, "k_error": 0.0047}, "broken"),  # one level of 32
        ({"k_error": 0.01, "heads": (0.9, 0.9)}, "broken"),
        ({"v_error": 0.0091, "v_reference": None}, "passed"),
        ({"v_error": 0.0097, "v_reference": None}, "broken"),
        ({"v_energy": 0.4}, "broken"),
        ({"k_energy": 2.1}, "broken"),
        ({"kernel": 0.02}, "broken"),
        ({"empty": True}, "broken"),
        ({"type_v": "", "v_error": None, "v_reference": None, "v_energy": None, "kernel": None}, "passed"),
    ],
)
def test_the_verdict_tells_a_broken_build_from_extreme_keys(change: dict[str, object], verdict: str) -> None:
    changed = replace(LAYER, **{"layer": 1, **change})  # type: ignore[arg-type]
    found = judge([LAYER, changed] if changed.layer else [changed], TYPES, tokens=1024)
    assert found.verdict == verdict, found.summary
