"""Two texts side by side: which parts of them are the same."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from ..core.records import record
from .wording import visible

_MOST = 4_000_000
"""words of one text times words of the other, up to which the differing middle is aligned"""


@record
class Span:
    """A part of a text; `same` if the other text has it, too."""

    text: str
    same: bool


@record
class Parallel:
    """Two texts as spans. `alike` is the number of words with which both begin."""

    baseline: tuple[Span, ...]
    candidate: tuple[Span, ...]
    identical: bool
    alike: int


def parallel(baseline: str, candidate: str) -> Parallel:
    """Both texts, aligned by words: what they begin and end with first, so that long texts are cheap, too."""
    first, second = _words(visible(baseline)), _words(visible(candidate))
    start = _common(first, second)
    end = _common(first[start:][::-1], second[start:][::-1])
    middles = first[start : len(first) - end], second[start : len(second) - end]
    left, right = [Span(text="".join(first[:start]), same=True)], [Span(text="".join(first[:start]), same=True)]
    for same, one, other in _aligned(*middles):
        left.append(Span(text="".join(one), same=same))
        right.append(Span(text="".join(other), same=same))
    tail = Span(text="".join(first[len(first) - end :]), same=True)
    return Parallel(
        baseline=tuple(span for span in (*left, tail) if span.text),
        candidate=tuple(span for span in (*right, tail) if span.text),
        identical=baseline == candidate,
        alike=sum(not word.isspace() for word in first[:start]),
    )


def _words(text: str) -> list[str]:
    return re.findall(r"\s+|\w+|[^\w\s]+", text)


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(first), len(second)))


def _aligned(first: list[str], second: list[str]) -> list[tuple[bool, list[str], list[str]]]:
    if len(first) * len(second) > _MOST:
        return [(False, first, second)]
    found = difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes()
    return [(tag == "equal", first[a:b], second[c:d]) for tag, a, b, c, d in found]
