"""A conversation of fifty turns, whose user's side is fixed: answered freely, and read along another's answers.

*Free*: a side answers each turn greedily, and goes on from its own answers. *Forced*: a side reads the baseline's
conversation, and tells before each of the next tokens of the baseline's answer what it would have said; also before the
last words of the user, which stay fresh where a small model answers the same again and again. Each turn is rendered by
the model's template and tokenized anew, as chat clients, Ollama and llama-server do it.

Where a prompt and its answer no longer fit the context, the oldest turns are left out, until half of the context is
free. Ollama's chat also leaves out the oldest messages before the model reads them; llama-server refuses such a prompt,
so that its clients have to. A shift within the cache happens in both only while one answer is written (Ollama) or not
at all (llama-server's default). It would move positions on either side by itself, so that the two caches would no
longer hold the same tokens. The half spares reading all anew at each further turn.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec

from ...core.documents import read_yaml
from ...core.records import record, sha256_bytes
from ..endpoint import MOST_LISTED, Endpoint, Message, transcript
from ..plan import Side
from ..trial import Progress, Trial

_FILE = Path(__file__).parents[1] / "prompts" / "session.yaml"
_CHARACTERS = 2.5
"""of a token, at least on average, where the server does not count: in text and code it is three to four"""


@record
class Size:
    """How much is asked. The limits bound the time; a side takes minutes with a small model."""

    turns: int = 10
    """of each phase"""
    tokens: int = 128
    """of an answer, at most"""
    positions: int = 32
    """of each answer at which the predictions are compared, at most"""
    words: int = 8
    """last words of the user's turn at which they are compared, too"""
    listed: int = 128
    """likeliest tokens that are compared singly"""


USUAL = Size()


@record
class Phase:
    """Ten turns of one kind of work."""

    name: str
    turns: tuple[str, ...]


@record
class Script:
    """session.yaml. A turn holds {word}s."""

    words: Mapping[str, tuple[str, ...]]
    phases: tuple[Phase, ...]


@record
class Question:
    """A turn of the user."""

    phase: str
    text: str


@record
class Turn:
    """A question and its free answer. `ids` are the answer's tokens, with the one that ends it; -1 on Ollama."""

    phase: str
    user: str
    dropped: int
    """turns that were left out before it"""
    prompt_sha256: str
    answer: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    """the text of each token"""
    stop: str
    read: int
    """tokens of the prompt that were read now; the others were in the cache"""
    seconds: float


@record
class Reading:
    """What a side predicts in a turn: at each position the logarithms of the likeliest tokens' probabilities.

    A token is named by its id, on Ollama by its text. `words` are the positions before words of the user, `positions`
    those along the answer.
    """

    words: tuple[Mapping[str, float], ...]
    positions: tuple[Mapping[str, float], ...]
    read: int
    """tokens that were not in the cache"""
    seconds: float


@cache
def script() -> Script:
    """The fixed user's side."""
    return msgspec.convert(read_yaml(_FILE), Script)


def questions(seed: int, size: Size = USUAL) -> tuple[Question, ...]:
    """The user's turns, in their order, with the words that the seed chooses."""
    rng = random.Random(seed)  # noqa: S311
    words = {name: rng.choice(several) for name, several in script().words.items()}
    return tuple(
        Question(phase=phase.name, text=text.format_map(words))
        for phase in script().phases
        for text in phase.turns[: size.turns]
    )


def answered(trial: Trial, side: Side, progress: Progress, size: Size = USUAL) -> list[Turn]:
    """The side's own conversation; each turn is kept. Raises `ServerFailed`."""
    done: list[Turn] = []
    for number, question in enumerate(questions(trial.plan.seed, size)):
        key = f"session/free/{side}/{number:02}"
        fresh = not trial.store.has(key)
        done.append(trial.kept(key, Turn, lambda asked=question: _answer(trial.at(side), done, asked, size)))  # type: ignore[misc]
        progress.advance(f"{side}, turn {number + 1}, {question.phase}", measured=fresh)
    return done


def read_along(
    trial: Trial, side: Side, turns: Sequence[Turn], progress: Progress, size: Size = USUAL
) -> list[Reading]:
    """What the side predicts along the answers of a conversation; each turn is kept. Raises `ServerFailed`."""
    found = []
    for number, turn in enumerate(turns):
        key = f"session/forced/{side}/{number:02}"
        fresh = not trial.store.has(key)
        found.append(trial.kept(key, Reading, lambda at=number: _read(trial.at(side), turns, at, size)))  # type: ignore[misc]
        progress.advance(f"{side} reads turn {number + 1}, {turn.phase}", measured=fresh)
    return found


def _answer(endpoint: Endpoint, done: Sequence[Turn], question: Question, size: Size) -> Turn:
    dropped, prompt = _fitting(endpoint, done, question, size)
    found = endpoint.generate(prompt, tokens=size.tokens, stop=_ends(prompt))
    return Turn(
        phase=question.phase,
        user=question.text,
        dropped=dropped,
        prompt_sha256=sha256_bytes(prompt.encode()),
        answer=found.text,
        ids=tuple(piece.id for piece in found.pieces),
        pieces=tuple(piece.text for piece in found.pieces),
        stop=found.stop,
        read=found.counters.prompt,
        seconds=round(found.total_s, 2),
    )


def _fitting(endpoint: Endpoint, done: Sequence[Turn], question: Question, size: Size) -> tuple[int, str]:
    """How many turns are left out, and the prompt of the others."""
    dropped = done[-1].dropped if done else 0
    prompt = endpoint.chat(_messages(done[dropped:], question.text))
    if _tokens(endpoint, prompt) + size.tokens < endpoint.context:
        return dropped, prompt
    while dropped < len(done) and _tokens(endpoint, prompt) > endpoint.context // 2:
        dropped += 1
        prompt = endpoint.chat(_messages(done[dropped:], question.text))
    return dropped, prompt


def _messages(before: Sequence[Turn], user: str) -> list[Message]:
    said = [
        Message(role=role, content=text)
        for turn in before
        for role, text in (("user", turn.user), ("assistant", turn.answer))
    ]
    return [*said, Message(role="user", content=user)]


def _tokens(endpoint: Endpoint, prompt: str) -> int:
    return len(endpoint.tokenize(prompt)) or math.ceil(len(prompt) / _CHARACTERS)


def _ends(prompt: str) -> tuple[str, ...]:
    """Words that end an answer: in a plain transcript, the user's next turn."""
    plain = prompt.endswith(transcript([]))
    return ("\nUser:",) if plain else ()


def _read(endpoint: Endpoint, turns: Sequence[Turn], at: int, size: Size) -> Reading:
    turn = turns[at]
    prompt = endpoint.chat(_messages(turns[turn.dropped : at], turn.user))
    read, seconds = 0, 0.0

    def predicted(given: str | Sequence[int]) -> Mapping[str, float]:
        nonlocal read, seconds
        found = endpoint.generate(given, tokens=1, listed=min(size.listed, MOST_LISTED[endpoint.backend]))
        read, seconds = read + found.counters.prompt, seconds + found.total_s
        top = found.pieces[0].top if found.pieces else ()
        return {str(one.id) if one.id >= 0 else one.text: round(one.logprob, 5) for one in top}

    return Reading(
        words=tuple([predicted(endpoint.tokenize(given) or given) for given in _before_words(prompt, turn, size)]),
        positions=tuple([predicted(given) for given in _along(endpoint, prompt, turn, size)]),
        read=read,
        seconds=round(seconds, 2),
    )


def _before_words(prompt: str, turn: Turn, size: Size) -> Iterator[str]:
    """The prompt up to each of the last words of the user's turn. A template that changes the turn has none."""
    begin = prompt.rfind(turn.user)
    places = [begin + found.start() for found in re.finditer(r"(?<=\S) (?=\S)", turn.user)] if begin >= 0 else []
    yield from (prompt[:place] for place in places[-size.words :] if size.words)


def _along(endpoint: Endpoint, prompt: str, turn: Turn, size: Size) -> Iterator[str | list[int]]:
    """The prompt with ever more of the answer: as tokens, or, where the server takes none, as text."""
    ids = endpoint.tokenize(prompt)
    for length in range(max(1, min(size.positions, len(turn.pieces)))):
        yield [*ids, *turn.ids[:length]] if ids else prompt + "".join(turn.pieces[:length])
