"""Small changes of a prompt: they must not change the answers more under the candidate than under the baseline.

A change's drift is the edit distance between the answers to the plain and to the changed question, in tokens, over the
length of the former. Some drift is right, as the name in the answer changes with that in the question; so what counts
is the candidate's drift less the baseline's, paired by question and change.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from ...core.records import record
from ...models.quality.measure import Estimate
from ..endpoint import Message
from ..plan import SIDES, Side
from ..result import Figure, Table, TestResult
from ..trial import Trial
from . import starts

NAME = "perturbation"
TOKENS = 24
"""of each answer"""
PLAIN = "plain"
SURE = 2.0
"""standard errors"""


@record
class Answered:
    """An answer, token by token: ids as texts, or texts where the server tells no ids."""

    prompt: str
    tokens: tuple[str, ...]
    text: str


@record
class PromptDrift:
    """What one change of one question does to the answers of both sides, as a share of the answer."""

    question: str
    change: str
    baseline: float
    candidate: float

    @property
    def excess(self) -> float:
        """What the candidate adds."""
        return self.candidate - self.baseline


def measure(trial: Trial) -> TestResult:
    """Drift under both sides. Reported: a few questions decide nothing."""
    found = drifts(trial)
    if not found:
        return TestResult(test=NAME, verdict="not asked", summary="the baseline answers no question")
    excess = by_question(found)
    more = excess.mean > SURE * excess.error and excess.mean > 0
    return TestResult(
        test=NAME,
        verdict="reported",
        summary=f"excess drift {100 * excess.mean:+.1f} ± {100 * excess.error:.1f}% of an answer",
        figures=(
            Figure(
                name="drift",
                baseline=100 * statistics.fmean(one.baseline for one in found),
                candidate=100 * statistics.fmean(one.candidate for one in found),
                unit="%",
            ),
            Figure(
                name="excess drift",
                candidate=100 * excess.mean,
                unit="%",
                error=100 * excess.error,
                limit="not above 0 by two standard errors",
                ok=not more,
            ),
        ),
        tables=(_table(found),),
    )


def drifts(trial: Trial) -> tuple[PromptDrift, ...]:
    """Each change of each question that the baseline answers, from the cells, or measured now."""
    asked = [(one, kind, text) for one in starts.QUESTIONS for kind, text in ((PLAIN, one.text), *one.variants())]
    answers: dict[tuple[Side, str, str], Answered] = {}
    with trial.progress(NAME, 2 * len(asked)) as progress:
        for side in SIDES:
            for question, kind, text in asked:
                key = f"{NAME}/{side}/{question.name}-{kind}"
                was = trial.store.has(key)
                answers[side, question.name, kind] = trial.kept(
                    key, Answered, functools.partial(_answer, trial, side, text)
                )
                progress.advance(f"{side}, {question.name}, {kind}", measured=not was)
    return tuple(
        PromptDrift(
            question=question.name,
            change=kind,
            baseline=drift(answers["baseline", question.name, PLAIN], answers["baseline", question.name, kind]),
            candidate=drift(answers["candidate", question.name, PLAIN], answers["candidate", question.name, kind]),
        )
        for question in starts.QUESTIONS
        if answers["baseline", question.name, PLAIN].tokens
        for kind, _ in question.variants()
    )


def by_question(found: Sequence[PromptDrift]) -> Estimate:
    """Mean excess, with its error over questions: all changes of one share the answer that they are compared with."""
    of: dict[str, list[float]] = defaultdict(list)
    for one in found:
        of[one.question].append(one.excess)
    means = [statistics.fmean(values) for values in of.values()]
    error = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    return Estimate(mean=statistics.fmean(means), error=error)


def drift(plain: Answered, changed: Answered) -> float:
    """Edit distance over the length of the plain answer, at most 1."""
    return min(1.0, distance(plain.tokens, changed.tokens) / max(len(plain.tokens), 1))


def distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein's: the fewest insertions, deletions and replacements from one to the other."""
    above = list(range(len(b) + 1))
    for number, one in enumerate(a, 1):
        row = [number]
        for place, other in enumerate(b):
            row.append(min(above[place] + (one != other), above[place + 1] + 1, row[place] + 1))
        above = row
    return above[-1]


def _answer(trial: Trial, side: Side, text: str) -> Answered:
    endpoint = trial.at(side)
    prompt = endpoint.chat([Message(role="user", content=text)])
    found = endpoint.generate(prompt, tokens=TOKENS)
    tokens = tuple(piece.text if piece.id < 0 else str(piece.id) for piece in found.pieces)
    return Answered(prompt=prompt, tokens=tokens, text=found.text)


def _table(found: Sequence[PromptDrift]) -> Table:
    return Table(
        title="Drift by kind of change",
        header=("change", "questions", "baseline", "candidate", "excess"),
        rows=tuple(_rows(found)),
    )


def _rows(found: Sequence[PromptDrift]) -> Iterator[tuple[str, ...]]:
    for kind in dict.fromkeys(one.change for one in found):
        these = [one for one in found if one.change == kind]
        means = [
            statistics.fmean(values)
            for values in zip(*((d.baseline, d.candidate, d.excess) for d in these), strict=True)
        ]
        yield kind, str(len(these)), f"{100 * means[0]:.0f}%", f"{100 * means[1]:.0f}%", f"{100 * means[2]:+.1f}%"
