"""Ollama as one side's server."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import ServerFailed
from ..core.printable import printable
from ..core.records import record
from ..serving.ollama import OllamaClient
from .endpoint import MOST_LISTED, Counters, Generated, Message, Piece, transcript
from .plan import Backend
from .streamed import Probability, answered, decoded, likeliest

_NANOSECONDS = 1e9
_REPEATED = 30
"""times that Ollama lets a token repeat, blanks aside, before it ends the answer without its last line"""


@record
class _OllamaLine:
    response: str = ""
    done: bool = False
    done_reason: str = ""
    error: str = ""
    logprobs: tuple[Probability, ...] | None = None
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
            last = decoded(data, _OllamaLine, self.client.base_url)
            if last.error:
                raise ServerFailed(f"{self.client.base_url}: {printable(last.error)}")
            said = (last.logprobs or (None,))[0]
            if last.response or said:
                listing = likeliest(said) if said else ()
                pieces.append(
                    Piece(id=-1, text=last.response, at_s=at, logprob=said.logprob if said else None, top=listing)
                )
        gave_up = not last.done and len({piece.text.strip() for piece in pieces[-_REPEATED:]}) == 1
        if not last.done and not (gave_up and len(pieces) >= _REPEATED):
            raise ServerFailed(f"{self.client.base_url}: the answer broke off after {len(pieces)} tokens")
        return answered(
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
        found = decoded(data, _Rendered, self.client.base_url)._debug_info
        return found.rendered_template if found and found.rendered_template else transcript(messages)

    def tokenize(self, text: str) -> tuple[int, ...]:  # noqa: ARG002
        """Empty: Ollama tells no tokens."""
        return ()
