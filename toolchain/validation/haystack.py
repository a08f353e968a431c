"""A long text of so many tokens, with sentences hidden at given depths: the same for the same seed."""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections.abc import Iterable

from ..core.errors import ConfigError
from .endpoint import Endpoint

_SAMPLES, _SAMPLE_CHARACTERS = 4, 1000
_SHORTEST = 200
_CLOSE = 0.98
"""of the tokens, that a cut text has at least where the server counts them"""
_UNCOUNTED = 0.95
"""of the tokens, that a text is cut to where they are estimated"""
_PLACES = (r"\n[ \t]*\n", r"\n", r"(?<=[.!?]) ", r" ")
_FEWEST_PLACES = 20


def looped(text: str, characters: int, seed: str) -> str:
    """At least so many characters of a text, from a line or word that the seed chooses, again and again.

    Raises `ConfigError` for a text that is too short to be a haystack.
    """
    if len(text) < _SHORTEST:
        raise ConfigError(
            f"--text: {len(text)} characters are too few for a haystack", hint=f"at least {_SHORTEST}, better 100,000"
        )
    starts = _places(text)
    start = random.Random(seed).choice(starts) if starts else 0  # noqa: S311  any place will do
    turned = text[start:] + text[:start]
    return (turned * -(-characters // len(turned)))[:characters]


def count(endpoint: Endpoint, text: str) -> int:
    """Tokens of a text: told by the server, or counted by having it read."""
    told = len(endpoint.tokenize(text))
    if told:
        return told
    counters = endpoint.generate(text, tokens=1).counters
    return counters.prompt + counters.cached


def fit(endpoint: Endpoint, text: str, tokens: int) -> str:
    """The beginning of a text with at most so many tokens, and not many fewer; all of it if it has no more."""
    if endpoint.backend == "ollama":
        return text[: int(tokens * _UNCOUNTED * _characters_per_token(endpoint, text, tokens))]
    size, most = min(len(text), 4 * tokens), len(text)
    while found := count(endpoint, text[:size]):
        if found > tokens:
            most = size - 1
        elif found >= _CLOSE * tokens or size >= most:
            break
        size = max(min(int(size * 0.995 * tokens / found), most), 0)
    return text[:size]


def _characters_per_token(endpoint: Endpoint, text: str, tokens: int) -> float:
    """Estimated from samples of the part that the cut text will be of."""
    length = min(_SAMPLE_CHARACTERS, max(tokens // 2, 1))
    reach = max(min(len(text), 4 * tokens) - length, 0)
    samples = [text[at : at + length] for at in (reach * one // _SAMPLES for one in range(_SAMPLES))]
    return min(len(sample) / count(endpoint, sample) for sample in samples if sample)


def hide(text: str, facts: Iterable[tuple[float, str]]) -> str:
    """The text with each sentence as a paragraph of its own, at the place nearest to its depth (0 to 1).

    Sentences of one place stand in the order given.
    """
    places = [0, *_places(text), len(text)]
    chosen = sorted(((_nearest(places, depth * len(text)), fact) for depth, fact in facts), key=lambda one: one[0])
    parts, last = list[str](), 0
    for place, fact in chosen:
        parts += [text[last:place], f"\n\n{fact}\n\n"]
        last = place
    return "".join((*parts, text[last:])).strip()


def _places(text: str) -> list[int]:
    """Where a paragraph may be put in: between paragraphs, else lines, sentences or words."""
    found = list[int]()
    for pattern in _PLACES:
        found = [match.end() for match in re.finditer(pattern, text)]
        if len(found) >= _FEWEST_PLACES:
            break
    return found


def _nearest(places: list[int], wanted: float) -> int:
    after = bisect_left(places, wanted)
    return min(places[max(after - 1, 0) : after + 1], key=lambda place: abs(place - wanted))
