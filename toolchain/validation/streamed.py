"""What the answers of both programs have in common while they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from ..core.errors import ServerFailed
from ..core.printable import printable
from ..core.records import record
from .endpoint import Counters, Generated, Listed, Piece

T = TypeVar("T")


@record
class Probability:
    """A token with its probability, as both programs state it, and those that could have been chosen."""

    id: int = -1
    token: str = ""
    logprob: float | None = None
    top_logprobs: tuple[Probability, ...] = ()


def likeliest(position: Probability) -> tuple[Listed, ...]:
    """The tokens that a position lists, with their probabilities."""
    return tuple(
        Listed(id=one.id, text=one.token, logprob=one.logprob)
        for one in position.top_logprobs
        if one.logprob is not None
    )


def answered(
    given: str | list[int],
    seed: int,
    temperature: float,
    pieces: Sequence[Piece],
    *,
    stop: str,
    truncated: bool,
    total_s: float,
    counters: Counters,
) -> Generated:
    """A finished answer, with the time to its first text."""
    spoken = [piece.at_s for piece in pieces if piece.text]
    return Generated(
        prompt=given if isinstance(given, str) else "",
        prompt_tokens=() if isinstance(given, str) else tuple(given),
        seed=seed,
        temperature=temperature,
        text="".join(piece.text for piece in pieces),
        pieces=tuple(pieces),
        stop=stop,
        truncated=truncated,
        first_s=min(spoken, default=total_s),
        total_s=total_s,
        counters=counters,
    )


def decoded(data: bytes, kind: type[T], where: str) -> T:
    """A part of an answer. Raises `ServerFailed` for another shape than `kind`'s."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, msgspec.MsgspecError) as error:
        raise ServerFailed(f"{where}: unreadable answer: {printable(str(error), 120)}") from error
