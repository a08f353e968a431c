"""The session: whether the answers get worse over fifty turns, and from which turn on.

It fails where the forced KL rises (see `degradation`), or where the candidate's free answers have more
mechanical faults than the baseline's beyond chance. A candidate that is worse from its first turn on, and no worse at
the last, is the perplexity test's to judge; its forced level is reported here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...models.compatibility.trial import position_divergence
from ..plan import SIDES, Side
from ..result import Figure, Line, Pair, Plot, Table, TestResult
from ..trial import Trial
from . import degradation
from .conversation import USUAL, Reading, Size, Turn, answered, read_along
from .degradation import Rise, Turning, levels, uncertainty
from .faults import faults

NAME = "session"
FAULT_SIGNIFICANCE = 0.001
"""small, since a loop stays in the conversation, and so answers with faults do not come by themselves"""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A turn as both sides read it. `surprise` is the mean negative log-probability of the answer's tokens."""

    means: Turning
    same_top: float
    surprise: Mapping[Side, float]


def measure(trial: Trial, size: Size = USUAL) -> TestResult:
    """The session on both sides. Raises `ServerFailed`; the turns that were answered are kept."""
    count = 5 * size.turns
    with trial.progress("session: 50 turns", 4 * count) as progress:
        own: dict[Side, list[Turn]] = {"baseline": answered(trial, "baseline", progress, size)}
        exact = read_along(trial, "baseline", own["baseline"], progress, size)
        rough = read_along(trial, "candidate", own["baseline"], progress, size)
        own["candidate"] = answered(trial, "candidate", progress, size)
    return judged(own, compared(own["baseline"], exact, rough), ollama=trial.plan.backend == "ollama")


def compared(turns: Sequence[Turn], exact: Sequence[Reading], rough: Sequence[Reading]) -> list[Step]:
    """Both sides' readings of one conversation, turn by turn."""
    return [_step(turn, a, b) for turn, a, b in zip(turns, exact, rough, strict=True)]


def judged(own: Mapping[Side, Sequence[Turn]], steps: Sequence[Step], *, ollama: bool) -> TestResult:
    """The verdict on a session that was measured."""
    found = degradation.rise([one.means for one in steps])
    wrong = {side: [faults(own[side], at) for at in range(len(own[side]))] for side in SIDES}
    broken = {side: sum(map(bool, wrong[side])) for side in SIDES}
    chance = more_often(broken["baseline"], broken["candidate"], len(steps))
    kl, perplexity, delta = np.array([one.means.kl for one in steps]), _perplexities(steps), _delta(steps)
    reasons = []
    if found.degraded:
        reasons.append(f"degrades from turn {found.turn} on, by a factor of {found.factor:.2g}")
    if chance < FAULT_SIGNIFICANCE:
        reasons.append(
            f"{broken['candidate']} of {len(steps)} answers with mechanical faults, {broken['baseline']} before"
        )
    good = f"no degradation in {len(steps)} turns: KL {kl.mean():.2g}, perplexity of the answers {delta[0]:+.2g}"
    same = sum(a.answer == b.answer for a, b in zip(own["baseline"], own["candidate"], strict=True))
    figures = (
        Figure(name="KL, forced", candidate=float(kl.mean()), error=_error(kl), unit="nats"),
        Figure(
            name="perplexity of the baseline's answers",
            baseline=perplexity["baseline"],
            candidate=perplexity["candidate"],
            error=delta[1],
        ),
        Figure(
            name="clearest rise of the KL, at equal uncertainty",
            candidate=found.factor,
            unit=f"times, from turn {found.turn} on, by chance in {found.chance:.1%}",
            limit=f"< {degradation.FACTOR}, or by chance in {degradation.SIGNIFICANCE:.1%}",
            ok=not found.degraded,
        ),
        Figure(
            name="answers with mechanical faults",
            baseline=float(broken["baseline"]),
            candidate=float(broken["candidate"]),
            unit=f"of {len(steps)}, so many more by chance in {chance:.2%}",
            limit=f"no more than by chance in {FAULT_SIGNIFICANCE:.1%}",
            ok=chance >= FAULT_SIGNIFICANCE,
        ),
        Figure(name="same token likeliest, forced", candidate=100 * _mean([one.same_top for one in steps]), unit="%"),
        Figure(name="free answers that are the same", candidate=float(same), unit=f"of {len(steps)}"),
    )
    return TestResult(
        test=NAME,
        verdict="failed" if reasons else "passed",
        summary="; ".join(reasons) or good,
        figures=figures,
        notes=tuple(_notes(own["baseline"], steps, found, ollama=ollama)),
        plots=_plots(steps, wrong),
        tables=(_phases(own, steps, wrong),),
        pairs=tuple(_pairs(own, wrong)),
    )


def more_often(baseline: int, candidate: int, turns: int) -> float:
    """Fisher's exact test, one-sided: the chance of so many faults of the candidate, were both rates the same."""
    both, ways = baseline + candidate, math.comb(2 * turns, turns)
    possible = range(candidate, min(both, turns) + 1)
    return sum(math.comb(both, k) * math.comb(2 * turns - both, turns - k) for k in possible) / ways


def _step(turn: Turn, exact: Reading, rough: Reading) -> Step:
    pairs = zip((*exact.words, *exact.positions), (*rough.words, *rough.positions), strict=True)
    asked = [(a, b) for a, b in pairs if a and b]
    kl = [position_divergence(a, b) for a, b in asked]
    said = [str(one) if one >= 0 else text for one, text in zip(turn.ids, turn.pieces, strict=True)]
    surprise: dict[Side, float] = {}
    for side, told in zip(SIDES, (exact.positions, rough.positions), strict=True):
        # a token that is not listed is less likely than all that are
        surprise[side] = _mean(
            [-one.get(name, min(one.values())) for name, one in zip(said, told, strict=False) if one]
        )
    return Step(
        means=Turning(kl=_mean(kl), uncertainty=_mean([uncertainty(a) for a, _ in asked])),
        same_top=_mean([max(a, key=a.__getitem__) == max(b, key=b.__getitem__) for a, b in asked]),
        surprise=surprise,
    )


def _perplexities(steps: Sequence[Step]) -> dict[Side, float]:
    return {side: math.exp(_mean([one.surprise[side] for one in steps])) for side in SIDES}


def _delta(steps: Sequence[Step]) -> tuple[float, float]:
    """Difference of the perplexities, and its standard error with turns as the independent units."""
    mean = _perplexities(steps)
    paired = np.array([one.surprise["candidate"] - one.surprise["baseline"] for one in steps])
    return mean["candidate"] - mean["baseline"], mean["candidate"] * _error(paired)


def _error(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _notes(turns: Sequence[Turn], steps: Sequence[Step], found: Rise, *, ollama: bool) -> list[str]:
    delta, error = _delta(steps)
    limit = "below" if delta + 2 * error <= 0.5 else "about" if delta - 2 * error <= 0.5 else "above"
    notes = [
        f"perplexity of the baseline's answers: {delta:+.3f} ± {error:.3f}, {limit} the perplexity test's limit of 0.5"
    ]
    if found.degraded and (at := degradation.noticed([one.means for one in steps])):
        notes.append(f"a session that ended after turn {at} would have been called degraded, too")
    if 2 * sum(bool(faults(turns, at)) for at in range(len(turns))) > len(turns):
        notes.append(
            "most of the baseline's own answers have mechanical faults: the free conversation says little here"
        )
    left_out = [at + 1 for at, turn in enumerate(turns) if turn.dropped > (turns[at - 1].dropped if at else 0)]
    if left_out:
        notes.append(
            f"the context was full before turn {', '.join(map(str, left_out))}: the oldest turns were left out"
        )
    if ollama:
        notes.append(
            "Ollama takes no tokens and lists 20: prompts are texts, which are tokenized anew on both sides, and the "
            "KL is a lower bound that misses what happens among unlikely tokens"
        )
    return notes


def _plots(steps: Sequence[Step], wrong: Mapping[Side, Sequence[tuple[str, ...]]]) -> tuple[Plot, ...]:
    x = tuple(float(at + 1) for at in range(len(steps)))
    kl = Line(name="KL", x=x, y=tuple(one.means.kl for one in steps))
    equal = Line(name="at equal uncertainty", x=x, y=tuple(levels([one.means for one in steps])))
    so_far = tuple(
        Line(name=side, x=x, y=tuple(float(one) for one in np.cumsum([bool(one) for one in wrong[side]])))
        for side in SIDES
    )
    return (
        Plot(title="session: forced KL", x="turn", y="nats", lines=(kl, equal)),
        Plot(title="session: answers with mechanical faults so far", x="turn", y="answers", lines=so_far),
    )


def _phases(
    own: Mapping[Side, Sequence[Turn]], steps: Sequence[Step], wrong: Mapping[Side, Sequence[tuple[str, ...]]]
) -> Table:
    rows, equal = [], levels([one.means for one in steps])
    for phase in dict.fromkeys(turn.phase for turn in own["baseline"]):
        of = [at for at, turn in enumerate(own["baseline"]) if turn.phase == phase]
        kinds = [", ".join(sorted({kind for at in of for kind in wrong[side][at]})) or "none" for side in SIDES]
        kl, level = _mean([steps[at].means.kl for at in of]), _mean([equal[at] for at in of])
        rows.append((phase, f"{kl:.3g}", f"{level:.3g}", *kinds))
    return Table(
        title="phases",
        header=("phase", "KL", "at equal uncertainty", "faults of the baseline", "of the candidate"),
        rows=tuple(rows),
    )


def _pairs(own: Mapping[Side, Sequence[Turn]], wrong: Mapping[Side, Sequence[tuple[str, ...]]]) -> list[Pair]:
    """The first turn of each phase, as both sides answered it in their own conversation."""
    first = [at for at, turn in enumerate(own["baseline"]) if at == 0 or own["baseline"][at - 1].phase != turn.phase]
    return [
        Pair(
            key=f"session-{at + 1:02}",
            title=f"turn {at + 1}, {own['baseline'][at].phase}",
            prompt=own["baseline"][at].user,
            baseline=own["baseline"][at].answer,
            candidate=own["candidate"][at].answer,
            checks=tuple(f"{side}: {', '.join(wrong[side][at]) or 'no mechanical faults'}" for side in SIDES),
        )
        for at in first
    ]
