"""One side's server: prompts in, answers with tokens, probabilities and times out; the same for both programs.

Every answer is streamed, so that the times are those that a client sees. Prompts go in as they are, without a chat
template, unless `chat` is called. A model without a template gets a plain transcript.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from ..core.errors import ServerFailed
from ..core.printable import printable
from ..core.records import record
from ..serving.llama_server import LlamaServer
from ..serving.ollama import OllamaClient
from .plan import Backend

T = TypeVar("T")
MOST_LISTED = {"llama-server": 256, "ollama": 20}
"""probabilities for each position, at most"""
_NANOSECONDS = 1e9
_REPEATED = 30
"""times that Ollama lets a token repeat, blanks aside, before it ends the answer without its last line"""


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


@record
class _Probability:
    id: int = -1
    token: str = ""
    logprob: float | None = None
    top_logprobs: tuple[_Probability, ...] = ()


@record
class _Timings:
    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


@record
class _Event:
    content: str = ""
    tokens: tuple[int, ...] = ()
    stop: bool = False
    stop_type: str = ""
    truncated: bool = False
    completion_probabilities: tuple[_Probability, ...] = ()
    timings: _Timings | None = None


class LlamaEndpoint:
    """llama-server by itself."""

    backend: Backend = "llama-server"

    def __init__(self, server: LlamaServer, *, context: int, log: Path | None, template: bool) -> None:
        self.server = server
        self.context = context
        self.pid = server.pid
        self.log = log
        self._template = template

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
        """See `Endpoint`."""
        given = prompt if isinstance(prompt, str) else list(prompt)
        body: dict[str, Any] = {"prompt": given, "n_predict": tokens, "seed": seed, "temperature": temperature}
        body |= {"cache_prompt": reuse, "return_tokens": True, "stop": list(stop)}
        body |= {"n_probs": min(listed, MOST_LISTED["llama-server"])} if listed else {}
        started, pieces, last = time.monotonic(), list[Piece](), _Event()
        for data in self.server.stream("/completion", body):
            at = time.monotonic() - started
            last = _decoded(data, _Event, self.server.url)
            if not last.stop:
                pieces += _pieces(last, at)
        if not last.stop:
            raise ServerFailed(f"{self.server.url}: the answer broke off after {len(pieces)} tokens")
        timings = last.timings or _Timings()
        return _generated(
            given,
            seed,
            temperature,
            pieces,
            stop=last.stop_type or "limit",
            truncated=last.truncated,
            total_s=time.monotonic() - started,
            counters=Counters(
                cached=timings.cache_n,
                prompt=timings.prompt_n,
                prompt_s=timings.prompt_ms / 1e3,
                generated=timings.predicted_n,
                generated_s=timings.predicted_ms / 1e3,
            ),
        )

    def chat(self, messages: Sequence[Message]) -> str:
        """See `Endpoint`."""
        if not self._template:
            return transcript(messages)
        return self.server.prompt([{"role": one.role, "content": one.content} for one in messages])

    def tokenize(self, text: str) -> tuple[int, ...]:
        """See `Endpoint`."""
        return tuple(self.server.tokens(text))


def _pieces(event: _Event, at: float) -> Iterator[Piece]:
    for index, token in enumerate(event.tokens):
        text = event.content if index == 0 else ""
        if index < len(event.completion_probabilities):
            one = event.completion_probabilities[index]
            yield Piece(id=token, text=text, at_s=at, logprob=one.logprob, top=_listed(one))
        else:
            yield Piece(id=token, text=text, at_s=at)


def _listed(position: _Probability) -> tuple[Listed, ...]:
    return tuple(
        Listed(id=one.id, text=one.token, logprob=one.logprob)
        for one in position.top_logprobs
        if one.logprob is not None
    )


@record
class _OllamaLine:
    response: str = ""
    done: bool = False
    done_reason: str = ""
    error: str = ""
    logprobs: tuple[_Probability, ...] | None = None
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


@record
class _Debug:
    rendered_template: str = ""


@record
class _Rendered:
    _debug_info: _Debug | None = None


class OllamaEndpoint:
    """Ollama, which passes raw prompts on to its llama-server. Tokens have no ids there."""

    backend: Backend = "ollama"

    def __init__(
        self,
        client: OllamaClient,
        name: str,
        *,
        context: int,
        pid: int,
        log: Path | None,
        options: Mapping[str, Any],
        template: bool = True,
    ) -> None:
        self.client = client
        self.name = name
        self.context = context
        self.pid = pid
        self.log = log
        self._options = options
        self._template = template

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        tokens: int,
        seed: int = 1,
        temperature: float = 0.0,
        listed: int = 0,
        stop: Sequence[str] = (),
        reuse: bool = True,  # noqa: ARG002
    ) -> Generated:
        """See `Endpoint`. Ollama always reuses a prompt's start: without `reuse` the prompt must be new from its
        first words on, and the caller sees in `counters` how much was read."""
        if not isinstance(prompt, str):
            raise ServerFailed("Ollama takes no tokens", hint="--against llama-server")
        options = {**self._options, "num_ctx": self.context, "num_predict": tokens, "seed": seed}
        options |= {"temperature": temperature, "stop": list(stop)}
        body: dict[str, Any] = {"model": self.name, "prompt": prompt, "raw": True, "options": options}
        body |= {"keep_alive": -1, "stream": True}
        body |= {"logprobs": True, "top_logprobs": min(listed, MOST_LISTED["ollama"])} if listed else {}
        started, pieces, last = time.monotonic(), list[Piece](), _OllamaLine()
        for data in self.client.stream("/api/generate", body):
            at = time.monotonic() - started
            last = _decoded(data, _OllamaLine, self.client.base_url)
            if last.error:
                raise ServerFailed(f"{self.client.base_url}: {printable(last.error)}")
            said = (last.logprobs or (None,))[0]
            if last.response or said:
                listing = _listed(said) if said else ()
                pieces.append(
                    Piece(id=-1, text=last.response, at_s=at, logprob=said.logprob if said else None, top=listing)
                )
        gave_up = not last.done and len({piece.text.strip() for piece in pieces[-_REPEATED:]}) == 1
        if not last.done and not (gave_up and len(pieces) >= _REPEATED):
            raise ServerFailed(f"{self.client.base_url}: the answer broke off after {len(pieces)} tokens")
        return _generated(
            prompt,
            seed,
            temperature,
            pieces,
            stop="repeats" if gave_up else "limit" if last.done_reason == "length" else "eos",
            truncated=False,
            total_s=time.monotonic() - started,
            counters=Counters(
                cached=0,
                prompt=last.prompt_eval_count,
                prompt_s=last.prompt_eval_duration / _NANOSECONDS,
                generated=last.eval_count,
                generated_s=last.eval_duration / _NANOSECONDS,
                load_s=last.load_duration / _NANOSECONDS,
            ),
        )

    def chat(self, messages: Sequence[Message]) -> str:
        """See `Endpoint`. Ollama renders the prompt without answering it.

        A model without a template would get llama.cpp's own one, whose words such a model never saw.
        """
        if not self._template:
            return transcript(messages)
        body = {"model": self.name, "stream": False, "_debug_render_only": True}
        body |= {"messages": [{"role": one.role, "content": one.content} for one in messages]}
        data = b"".join(self.client.stream("/api/chat", body))
        found = _decoded(data, _Rendered, self.client.base_url)._debug_info
        return found.rendered_template if found and found.rendered_template else transcript(messages)

    def tokenize(self, text: str) -> tuple[int, ...]:  # noqa: ARG002
        """Empty: Ollama tells no tokens."""
        return ()


def _generated(
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


def _decoded(data: bytes, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, msgspec.MsgspecError) as error:
        raise ServerFailed(f"{where}: unreadable answer: {printable(str(error), 120)}") from error
