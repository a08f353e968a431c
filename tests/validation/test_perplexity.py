"""Perplexity and KL, with the scripted llama-perplexity."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tests.quality import llama_perplexity as double
from tests.validation.conftest import ROOT, MakePlan, MakeTrial
from toolchain.core.run import Run
from toolchain.models.quality.divergence import Chunk
from toolchain.models.quality.measure import Estimate
from toolchain.validation.trials import perplexity
from toolchain.validation.trials.perplexity import Found, Part


@pytest.fixture
def program(run: Run) -> Path:
    """llama-perplexity where a build puts it."""
    path = run.workspace / "build" / "key" / "llama-server" / "bin" / "llama-perplexity"
    path.parent.mkdir(parents=True)
    command = shlex.join([sys.executable, "-m", "tests.quality.llama_perplexity"])
    path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {command} "$@"\n')
    path.chmod(0o755)
    return path


def _found(delta: float, kl: float, error: float = 0.01) -> Found:
    return Found(
        chunks=10,
        base=10,
        delta=Estimate(mean=delta, error=error),
        kl=Estimate(mean=kl, error=error / 10),
        same_top=Estimate(mean=90, error=1),
        floor=0,
    )


@pytest.mark.parametrize(
    ("delta", "kl", "error", "verdict"),
    [
        (0.02, 0.004, 0.01, "passed"),
        (0.33, 0.035, 0.05, "passed"),
        (0.45, 0.035, 0.05, "undecided"),  # not by two standard errors
        (0.55, 0.035, 0.05, "undecided"),
        (0.65, 0.035, 0.05, "failed"),
        (0.30, 0.060, 0.05, "failed"),  # by KL alone
        (-0.90, 0.200, 0.05, "kill"),  # an inverted perplexity
        (1.05, 0.080, 0.05, "failed"),  # over the limit, but not for sure
        (1.70, 0.080, 0.05, "kill"),
    ],
)
def test_verdicts(delta: float, kl: float, error: float, verdict: str) -> None:
    found, notes = perplexity.judge(_found(delta, kl, error))
    assert found == verdict
    assert any("disagree" in note for note in notes) == ((delta <= 0.5) != (kl <= perplexity.KL_MOST))


def test_errors_are_those_of_chunks() -> None:
    """Chunks of KL 0 and 2 by turns: a mean of 1, with the error that the spread of chunks gives."""
    each = tuple(Chunk(nll=2 + n % 2, nll_base=2, kl=2.0 * (n % 2), same_top=50) for n in range(40))
    found = perplexity.estimate([Part(candidate=each, floor=each[:1], seconds=1, program_sha256="")], 1)
    assert (found.chunks, found.kl.mean, found.floor) == (40, 1, 0)
    assert found.kl.error == pytest.approx(1 / 39**0.5, rel=0.1)
    assert found.same_top == Estimate(mean=50, error=0)
    assert found.delta.mean == pytest.approx(2.718281828**2.5 - 2.718281828**2)


def test_parts_are_kept(
    program: Path, make_plan: MakePlan, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run finds the cells of the first, and the figures come from them alone."""
    monkeypatch.setattr(perplexity, "PART_BYTES", 3000)
    plan = make_plan(perplexity_bytes=7000)
    trial = make_trial(plan)
    assert perplexity.kept(trial) is None
    first = perplexity.measure(trial)
    assert list(trial.store.keys()) == ["perplexity/000", "perplexity/001"]
    figures = {one.name: one for one in first.figures}
    assert figures["perplexity added"].candidate == pytest.approx(double.FLOOR + 4 * double.noise("turbo4"), abs=0.02)
    assert figures["KL"].baseline == 0
    assert first.verdict == "kill"
    assert any("of another build" in note for note in first.notes)
    program.write_text("#!/bin/sh\nexit 1\n")
    assert perplexity.measure(make_trial(plan)) == first


def test_without_a_program_it_is_not_asked(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    found = perplexity.measure(make_trial(make_plan()))
    assert (found.verdict, "./inv build --targets llama-perplexity" in found.summary) == ("not asked", True)


def test_the_baseline_against_itself_passes(program: Path, make_plan: MakePlan, make_trial: MakeTrial) -> None:
    """Whatever the baseline is."""
    assert program.is_file()
    found = perplexity.measure(make_trial(make_plan(baseline="f16", candidate="f16", perplexity_bytes=3000)))
    assert found.verdict == "passed"


def test_the_releases_own_libraries_are_measured(
    program: Path, make_plan: MakePlan, make_trial: MakeTrial, tmp_path: Path
) -> None:
    """The program finds them in its folder, and those that the release lacks, beside itself."""
    plan = make_plan(candidate="f16", perplexity_bytes=3000)
    assert plan.release_dir is not None
    libraries = plan.release_dir / "lib" / "ollama"
    for one in (libraries / "libggml.so", program.parent / "libggml.so", program.parent / "libp.so"):
        one.write_text(str(one.parent))
    seen = tmp_path / "seen"
    program.write_text(program.read_text().replace("exec", f'cat "${{0%/*}}"/*.so > {seen}; exec', 1))
    perplexity.measure(make_trial(plan))
    assert seen.read_text() == f"{libraries}{program.parent}"
