"""What the needle test hides in a text and asks for, and which answers are right."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from ..core.records import record
from . import fixed
from .answers import spoken

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
FORMS = ("chat", "plain")
GROUPS = {"single": len(DEPTHS), "keyed": len(DEPTHS) + 1}
"""kinds of texts, and how many questions are asked of one"""
SURE = 0.1
"""nats of lead, from which on an answer of the baseline counts; other threads moved leads of f16 by 0.04"""
_SEVERAL_AT = (0.125, 0.5, 0.875)
_NUMBER = re.compile(r"(?<!\d)\d{7}(?!\d)")
_GROUPED = re.compile(r"(?<![\d,])\d,\d{3},\d{3}(?![\d,])")


@record
class Question:
    """What is asked of a text. `depth` is -1 for several values at several depths."""

    kind: str
    depth: float
    question: str
    continued: str
    numbers: tuple[str, ...]

    @property
    def key(self) -> str:
        """Of its cells."""
        return self.kind if self.depth < 0 else f"{self.kind}-{self.depth * 100:.0f}"


@record
class Share:
    """One length and depth: the share of tries in which each side finds it."""

    baseline: float
    candidate: float


@record
class Shares:
    """All lengths and depths of a finished needle test."""

    cells: tuple[Share, ...] = ()


SHARES = "needle/shares"
"""the cell that has them"""


@record
class Haystack:
    """A text with all that is hidden in it."""

    text: str
    attempt: int
    questions: tuple[Question, ...]


@record
class Cell:
    """One question in one text: what the two sides answered."""

    context: int
    attempt: int
    question: Question
    found: tuple[bool, bool]
    lead: float | None
    """of the baseline's right answer over the next likeliest one, in nats"""
    said: str
    """by the candidate"""

    @property
    def asked(self) -> bool:
        """Whether the baseline finds it, and surely."""
        return self.found[0] and (self.lead is None or self.lead >= SURE)


def hidden(seed: int, context: int, attempt: int, group: str) -> tuple[list[tuple[float, str]], tuple[Question, ...]]:
    """The facts of one text of a group with their depths, and the questions on them."""
    rng = random.Random(f"needle/{seed}/{context}/{attempt}/{group}")  # noqa: S311  no secrets
    said = fixed.needles()
    numbers = [str(one) for one in rng.sample(range(1_000_000, 10_000_000), len(DEPTHS) + len(_SEVERAL_AT))]
    if group == "single":
        subjects = rng.sample(said.single, len(DEPTHS))
    else:
        subjects = [f"{said.keyed.kind} {key}" for key in rng.sample(said.keyed.keys, len(DEPTHS))]
    facts, questions = list[tuple[float, str]](), list[Question]()
    for depth, subject, number in zip(DEPTHS, subjects, numbers, strict=False):
        begun = f"{subject[0].upper()}{subject[1:]} is"
        facts.append((depth, f"{begun} {number}."))
        asked = f"What is {subject}?"
        questions.append(Question(kind=group, depth=depth, question=asked, continued=begun, numbers=(number,)))
    if group == "keyed":
        values, fact = tuple(numbers[len(DEPTHS) :]), said.several.fact
        begun = f"{fact[0].upper()}{fact[1:]} is"
        facts += [(at, f"{begun} {one}.") for at, one in zip(_SEVERAL_AT, values, strict=True)]
        asked, continued = said.several.question, said.several.continued
        questions.append(Question(kind="several", depth=-1.0, question=asked, continued=continued, numbers=values))
    return facts, tuple(questions)


def right(text: str, numbers: Sequence[str], *, form: str, thinking: bool = False) -> bool:
    """Whether an answer names these numbers of seven digits and no other one; 1,234,567 counts as one, too.

    Of a continued sentence its first line counts, with as many numbers as were asked for.
    """
    said = spoken(text, thinking=thinking)
    if form == "plain":
        said = said.partition("\n")[0]
    said = _GROUPED.sub(lambda match: match[0].replace(",", ""), said)
    told = list(dict.fromkeys(_NUMBER.findall(said)))
    if form == "plain":
        told = told[: len(numbers)]
    return sorted(told) == sorted(numbers)


def shares(cells: Sequence[Cell]) -> Shares:
    """What each side finds at each context and depth, of all kinds together."""
    by: dict[tuple[int, float], list[tuple[bool, bool]]] = {}
    for one in cells:
        by.setdefault((one.context, one.question.depth), []).append(one.found)
    return Shares(
        cells=tuple(
            Share(baseline=sum(a for a, _ in found) / len(found), candidate=sum(b for _, b in found) / len(found))
            for found in by.values()
        )
    )
