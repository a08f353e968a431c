"""One side's server: prompts in, answers with tokens, probabilities and times out; the same for both programs.

Every answer is streamed, so that the times are those that a client sees. Prompts go in as they are, without a chat
template, unless `chat` is called. A model without a template gets a plain transcript.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..core.records import record
from .plan import Backend

MOST_LISTED = {"llama-server": 256, "ollama": 20}
"""probabilities for each position, at most"""


@record
class Message:
    """A turn of a chat; `role` is system, user or assistant."""

    role: str
    content: str


@record
class Listed:
    """A token that the model could have chosen; `id` is -1 where the server does not tell it."""

    id: int
    text: str
    logprob: float


@record
class Piece:
    """A generated token. `at_s` is seconds since the request; `top` are the likeliest tokens, if asked for."""

    id: int
    text: str
    at_s: float
    logprob: float | None = None
    top: tuple[Listed, ...] = ()


@record
class Counters:
    """What the server itself says of an answer: tokens and seconds. `cached` prompt tokens came from an earlier one."""

    cached: int
    prompt: int
    prompt_s: float
    generated: int
    generated_s: float
    load_s: float = 0.0


@record
class Generated:
    """An answer with all that led to it.

    `stop` is eos, limit or word; or repeats, where Ollama gave up on a token that was repeated too often, and told no
    counters.
    """

    prompt: str
    prompt_tokens: tuple[int, ...]
    """if the prompt was given as tokens"""
    seed: int
    temperature: float
    text: str
    pieces: tuple[Piece, ...]
    stop: str
    truncated: bool
    first_s: float
    """to the first content"""
    total_s: float
    counters: Counters


class Endpoint(Protocol):
    """A running server with one model and one cache type. A failed call raises `ServerFailed`."""

    backend: Backend
    context: int
    pid: int
    """of the program that was started; 0 for an endpoint that was given"""
    log: Path | None

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        tokens: int,
        seed: int = 1,
        temperature: float = 0.0,
        listed: int = 0,
        stop: Sequence[str] = (),
        reuse: bool = True,
    ) -> Generated:
        """Up to `tokens` tokens after a prompt (a text, or on llama-server tokens).

        `listed` probabilities come with each token. Without `reuse` nothing of an earlier prompt is taken from the
        cache.
        """
        ...

    def chat(self, messages: Sequence[Message]) -> str:
        """The prompt that the model's template makes of a chat, as far as the server tells it."""
        ...

    def tokenize(self, text: str) -> tuple[int, ...]:
        """The tokens of a text, with those that the model adds; empty where the server does not tell them (Ollama)."""
        ...


def transcript(messages: Sequence[Message]) -> str:
    """A chat as plain text, for a model without a template."""
    said = "".join(f"{one.role.capitalize()}: {one.content}\n\n" for one in messages)
    return f"{said}Assistant:"
