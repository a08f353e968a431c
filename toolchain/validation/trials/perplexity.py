"""Perplexity and KL of the candidate against the baseline, by llama-perplexity of the release's build.

The text is read in parts, each a kept cell: a part bounds the logits on disk (2 bytes for each word of the vocabulary
and scored token), and what an interruption loses. The first part also compares the baseline with itself, since the
logits are rounded on disk, so that even equal predictions show a KL. The program takes neighbouring tokens for
independent ones; the errors here come from a bootstrap over chunks.
"""

from __future__ import annotations

import functools
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...core import temporary
from ...core.errors import ReleaseInvalid, TextTooShort
from ...core.records import record, sha256_file
from ...core.run import Run
from ...models.compatibility.verdict import FINE_KL
from ...models.quality import divergence
from ...models.quality.choices import find_perplexity
from ...models.quality.divergence import Chunk
from ...models.quality.measure import Estimate
from ...sources.eras.era import LLAMA_SERVER
from ..plan import Plan
from ..result import Figure, Line, Plot, TestResult, Verdict
from ..trial import Trial

NAME = "perplexity"
CONTEXT = 1024
"""tokens of a chunk; its second half is scored"""
PART_BYTES = 30_000
LIMIT_S = 1200.0
"""no further part is begun after so long"""
MOST, KILL = 0.5, 1.0
"""of what the candidate adds to the perplexity"""
KL_MOST, KL_KILL = FINE_KL, math.log(1.10)
"""Nats. Where the text is as the baseline predicts it, the KL is the logarithm of the perplexities' ratio: these are
5% and 10% of the perplexity."""
SURE = 2.0
"""standard errors"""
_RESAMPLES = 2000


@record
class Part:
    """The chunks of one part of the text. `floor` is the baseline against itself, of the first part alone."""

    candidate: tuple[Chunk, ...]
    floor: tuple[Chunk, ...] = ()
    seconds: float
    program_sha256: str


@record
class Found:
    """What all parts together say."""

    chunks: int
    base: float
    """perplexity of the baseline"""
    delta: Estimate
    kl: Estimate
    same_top: Estimate
    floor: float
    """KL of the baseline from itself"""


def measure(trial: Trial) -> TestResult:
    """Perplexity and KL on the plan's text. Raises as `divergence.measure` does."""
    plan = trial.plan
    if plan.release_dir is None:
        return _not_asked("two endpoints were given, and llama-perplexity needs a build")
    try:
        program = find_perplexity(Run(config=trial.config, console=trial.console), "")
    except ReleaseInvalid:
        return _not_asked("there is no llama-perplexity: ./inv build --targets llama-perplexity, then the same command")
    parts = _parts(trial, program)
    found = estimate(parts, plan.seed)
    verdict, notes = judge(found)
    read = sum(one.seconds for one in parts)
    notes = [f"{found.chunks} chunks of {CONTEXT} tokens of {plan.text.name}, in {read:.0f} s", *notes]
    if not _of_the_release(plan, program):
        notes.append(f"{program} is of another build than the release, whose libraries it used")
    return TestResult(
        test=NAME,
        verdict=verdict,
        summary=f"perplexity {found.delta.mean:+.3f} ± {found.delta.error:.3f} of {found.base:.2f}, "
        f"KL {found.kl.mean:.4f} ± {found.kl.error:.4f}",
        figures=_figures(found),
        notes=tuple(notes),
        plots=(_plot(parts),),
    )


def kept(trial: Trial) -> Found | None:
    """What an earlier run of the test kept; None before it."""
    keys = trial.store.keys()
    cells = [key for key in keys if key.startswith(f"{NAME}/")]
    return estimate([trial.kept(key, Part, _missing) for key in cells], trial.plan.seed) if cells else None


def estimate(parts: Sequence[Part], seed: int) -> Found:
    """Means over all chunks, with errors by drawing chunks with replacement."""
    each = [chunk for part in parts for chunk in part.candidate]
    rows = np.array([(one.nll, one.nll_base, one.kl, one.same_top) for one in each])
    drawn = np.random.default_rng(seed).integers(len(rows), size=(_RESAMPLES, len(rows)))
    means = rows[drawn].mean(axis=1)
    wider = math.sqrt(len(rows) / max(len(rows) - 1, 1))  # a resample's variance is (n - 1)/n of the true one
    nll, base, kl, same_top = rows.mean(axis=0)
    deltas = np.exp(means[:, 0]) - np.exp(means[:, 1])
    return Found(
        chunks=len(rows),
        base=math.exp(base),
        delta=Estimate(mean=math.exp(nll) - math.exp(base), error=wider * float(deltas.std())),
        kl=Estimate(mean=float(kl), error=wider * float(means[:, 2].std())),
        same_top=Estimate(mean=float(same_top), error=wider * float(means[:, 3].std())),
        floor=float(np.mean([chunk.kl for part in parts for chunk in part.floor])),
    )


def judge(found: Found) -> tuple[Verdict, list[str]]:
    """The verdict: each limit is passed or missed only for sure, by two standard errors; else it is undecided."""
    notes = []
    delta, kl = found.delta, found.kl
    if (delta.mean <= MOST) != (kl.mean <= KL_MOST):
        notes.append(
            f"perplexity and KL disagree ({delta.mean:+.3f} and {kl.mean:.4f}): the KL decides. A worse cache can "
            "have the better perplexity, if the model's predictions were too sure of themselves"
        )
    if _low(delta) > KILL or _low(kl) > KL_KILL:
        return "kill", notes
    if _low(kl) > KL_MOST or _low(delta) > MOST:
        return "failed", notes
    if _high(delta) > MOST or _high(kl) > KL_MOST:
        notes.append("a limit is within two standard errors: more --perplexity-bytes, or a longer --text, decides")
        return "undecided", notes
    return "passed", notes


def _low(one: Estimate) -> float:
    return one.mean - SURE * one.error


def _high(one: Estimate) -> float:
    return one.mean + SURE * one.error


def _parts(trial: Trial, program: Path) -> list[Part]:
    plan, parts = trial.plan, list[Part]()
    text = plan.text.read_bytes()[: plan.perplexity_bytes]
    texts = [text[start : start + PART_BYTES] for start in range(0, len(text), PART_BYTES)]
    if len(texts) > 1 and len(texts[-1]) < PART_BYTES // 2:
        texts = [*texts[:-2], texts[-2] + texts[-1]]
    trial.sides.close()  # their memory is needed
    with trial.progress(NAME, len(texts)) as progress:
        for number, words in enumerate(texts):
            key = f"{NAME}/{number:03}"
            was = trial.store.has(key)
            try:
                measured = functools.partial(_part, trial, program, words, first=not parts)
                parts.append(trial.kept(key, Part, measured))
            except TextTooShort:
                if not parts:
                    raise
                break  # the last part of a text with long tokens
            progress.advance(f"part {number + 1} of {len(texts)}", measured=not was)
            if sum(one.seconds for one in parts) > LIMIT_S:
                break
    return parts


def _part(trial: Trial, program: Path, words: bytes, *, first: bool) -> Part:
    with temporary.folder("perplexity") as home:
        return _measured(trial, _among_libraries(program, trial.plan, home), words, first=first)


def _among_libraries(program: Path, plan: Plan, home: Path) -> Path:
    """The program with the release's own libraries, which are what is validated: a copy of it in `home`, with links.

    Programs of llama.cpp find their libraries, and the backends that these load, in the folder that they lie in. What a
    release lacks comes from the program's folder.
    """
    assert plan.release_dir is not None
    placed = home / program.name
    shutil.copy2(program, placed)
    for folder in (plan.release_dir / "lib" / "ollama", program.parent):
        for one in folder.iterdir():
            if (".so" in one.name or one.suffix == ".dylib") and not (home / one.name).exists():
                (home / one.name).symlink_to(one)
    return placed


def _measured(trial: Trial, program: Path, words: bytes, *, first: bool) -> Part:
    plan, began = trial.plan, time.monotonic()
    found = divergence.measure(
        program,
        plan.model,
        words.decode(errors="ignore").encode(),
        caches=[plan.baseline, plan.candidate] if first else [plan.candidate],
        context=min(CONTEXT, plan.trained_context),
        added=trial.added,
        log=trial.store.logs / f"{NAME}.log",
        console=trial.console,
        base=plan.baseline,
        environment=plan.environment,
    )
    return Part(
        candidate=found.rows[-1].each,
        floor=found.rows[0].each if first else (),
        seconds=round(time.monotonic() - began, 1),
        program_sha256=sha256_file(program),
    )


def _figures(found: Found) -> tuple[Figure, ...]:
    error = found.delta.error
    return (
        Figure(name="perplexity", baseline=found.base, candidate=found.base + found.delta.mean),
        Figure(
            name="perplexity added",
            candidate=found.delta.mean,
            error=error,
            limit=f"<= {MOST:g}, over {KILL:g} kills",
            ok=found.delta.mean <= MOST,
        ),
        Figure(
            name="KL",
            baseline=found.floor,
            candidate=found.kl.mean,
            unit="nats",
            error=found.kl.error,
            limit=f"<= {KL_MOST:.4f} (5% of the perplexity), over {KL_KILL:.4f} kills",
            ok=found.kl.mean <= KL_MOST,
        ),
        Figure(name="same top token", candidate=found.same_top.mean, unit="%", error=found.same_top.error),
    )


def _plot(parts: Sequence[Part]) -> Plot:
    kl = tuple(chunk.kl for part in parts for chunk in part.candidate)
    line = Line(name="candidate", x=tuple(float(number) for number in range(1, len(kl) + 1)), y=kl)
    return Plot(title="KL of each chunk", x="chunk", y="nats", lines=(line,), limit=KL_MOST)


def _of_the_release(plan: Plan, program: Path) -> bool:
    """Whether the build that made the program staged this very release's llama-server."""
    assert plan.release_dir is not None
    served = plan.release_dir / LLAMA_SERVER
    staged = [folder / "stage" / LLAMA_SERVER for folder in program.parents]
    return any(one.is_file() and sha256_file(one) == sha256_file(served) for one in staged)


def _not_asked(why: str) -> TestResult:
    return TestResult(test=NAME, verdict="not asked", summary=why)


def _missing() -> Part:
    raise AssertionError("a listed cell is kept")
