"""llama-server by itself as one side's server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import ServerFailed
from ..core.records import record
from ..serving.llama_server import LlamaServer
from .endpoint import MOST_LISTED, Counters, Generated, Message, Piece, transcript
from .plan import Backend
from .streamed import Probability, answered, decoded, likeliest


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
    completion_probabilities: tuple[Probability, ...] = ()
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
            last = decoded(data, _Event, self.server.url)
            if not last.stop:
                pieces += _pieces(last, at)
        if not last.stop:
            raise ServerFailed(f"{self.server.url}: the answer broke off after {len(pieces)} tokens")
        timings = last.timings or _Timings()
        return answered(
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
            yield Piece(id=token, text=text, at_s=at, logprob=one.logprob, top=likeliest(one))
        else:
            yield Piece(id=token, text=text, at_s=at)
