"""Scores of REFRACT's kind, from what the other tests kept, to compare with its leaderboard.

Its axes are on a scale of 0 to 100, and the whole is their harmonic mean. The formulas are those of refract-llm
0.3.2.3; prompts, texts and lengths are ours, so that scores agree in kind and not to the digit. An axis whose test did
not run is left out, as REFRACT does; a mean of fewer axes is no score of the leaderboard.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from ...core.records import record
from ..needles import SHARES, Share, Shares
from ..result import Figure, Table, TestResult
from ..trial import Trial
from . import perplexity, perturbation, trajectory
from .perturbation import PromptDrift
from .trajectory import Compared

NAME = "refract"
_ALPHA = 5.0
_BANDS = ((90.0, "EXCELLENT"), (80.0, "PASS"), (60.0, "DEGRADED"))


@record
class Scores:
    """0 to 100; None for an axis that was not measured. `whole` is None without any."""

    trajectory: float | None
    kld: float | None
    needle: float | None
    perturbation: float | None
    whole: float | None


def measure(trial: Trial) -> TestResult:
    """The scores of what was measured before, on the same plan. Nothing is asked of the servers."""
    tests = trial.plan.tests
    kl = perplexity.kept(trial)
    walked = trajectory.compared(trial) if trajectory.NAME in tests else ()
    drifts = perturbation.drifts(trial) if perturbation.NAME in tests else ()
    found = scores(walked=walked, kl=kl.kl.mean if kl else None, needles=needles(trial), drifts=drifts)
    if found.whole is None:
        return TestResult(
            test=NAME, verdict="not asked", summary="no axis was measured: trajectory, perplexity, perturbation, needle"
        )
    axes = {
        "trajectory": found.trajectory,
        "KLD": found.kld,
        "R-NIAH (needle)": found.needle,
        "PLAD (perturbation)": found.perturbation,
        "harmonic mean": found.whole,
    }
    left_out = [name for name, score in axes.items() if score is None]
    return TestResult(
        test=NAME,
        verdict="reported",
        summary=f"{found.whole:.1f}, {band(found.whole)}" + (f", without {', '.join(left_out)}" if left_out else ""),
        figures=(Figure(name="REFRACT's kind of score", candidate=found.whole),),
        tables=(
            Table(
                title="Scores of REFRACT's kind, by our prompts and text",
                header=("axis", "score", "band"),
                rows=tuple(
                    (name, "-" if score is None else f"{score:.1f}", "-" if score is None else band(score))
                    for name, score in axes.items()
                ),
            ),
        ),
    )


def scores(
    *, walked: Sequence[Compared], kl: float | None, needles: Sequence[Share], drifts: Sequence[PromptDrift]
) -> Scores:
    """The axes and their harmonic mean, as REFRACT defines them.

    Trajectory: mean prefix that both share, over the candidate's mean length. KLD: 100 exp(-KL). R-NIAH: 100 less the
    mean of what the candidate finds less often, 0 where it finds more. PLAD: mean of 100 exp(-5 excess), of an excess
    below 0 as of 0.
    """
    steps = sum(one.length for one in walked)
    prefix = sum(one.length if one.departs is None else one.departs for one in walked)
    along = 100 * prefix / steps if steps else None
    divergence = None if kl is None else 100 * math.exp(-max(kl, 0.0))
    lost = [max(one.baseline - one.candidate, 0.0) for one in needles]
    found = 100 * (1 - statistics.fmean(lost)) if lost else None
    kept = [100 * math.exp(-_ALPHA * max(one.excess, 0.0)) for one in drifts]
    steady = statistics.fmean(kept) if kept else None
    axes = [one for one in (along, divergence, found, steady) if one is not None]
    return Scores(
        trajectory=along,
        kld=divergence,
        needle=found,
        perturbation=steady,
        whole=statistics.harmonic_mean(axes) if axes else None,
    )


def band(score: float) -> str:
    """REFRACT's word for a score."""
    return next((word for least, word in _BANDS if score >= least), "FAIL")


def needles(trial: Trial) -> Sequence[Share]:
    """What the needle test kept for this; nothing unless it ran."""
    return trial.kept(SHARES, Shares, Shares).cells if trial.store.has(SHARES) else ()
