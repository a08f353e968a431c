"""llama-server by itself, without Ollama: one slot on a loopback port, whose cache can be saved to a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from ..core.cachetypes import grammar
from ..core.deadline import Deadline
from ..core.errors import ModelLoadFailed, ServerFailed, StateInvalid, ToolchainError
from ..core.printable import printable
from ..core.records import record
from . import transport
from .launcher import Launched, claim_port, hint_on, launch, require_program

R = TypeVar("R")
_EXPECTED = "a llama-server"
_MOST_BYTES = 32 << 20
"""of an answer: /tokenize gives a number for each few characters of a text"""
_HEALTH_S = 5.0
_END_S = 0.5
"""after a call broke off, until its process has ended"""
_SLOT_FILE = "slot.bin"
INFORMATIVE = "4"
"""llama.cpp's log level that includes the cache lines"""


_Count = Annotated[int, Meta(ge=0, le=2**48)]


@record
class Tokens:
    """The answer of /tokenize."""

    tokens: tuple[int, ...]


@record
class Listed:
    """A token that the model could have chosen."""

    id: int
    logprob: float


@record
class Position:
    """The most probable tokens of one position."""

    top_logprobs: tuple[Listed, ...]


@record
class Completion:
    """The answer of /completion."""

    content: str = ""
    tokens_predicted: _Count = 0
    completion_probabilities: tuple[Position, ...] = ()


@record
class _Saved:
    n_written: _Count


@record
class _Prompt:
    prompt: str


@record
class _Health:
    status: str = ""


@record
class _Generation:
    n_ctx: int = 0


@record
class _Properties:
    build_info: str = ""
    model_path: str = ""
    default_generation_settings: _Generation = _Generation()


@record
class Loaded:
    """What a llama-server has loaded. Without the right API key it does not say."""

    build: str = ""
    """of llama.cpp, such as b10488"""
    model: str = ""
    """its file, as it was named to the server: to compare it; not fit to be shown"""
    context: int = 0
    """of a slot, in tokens; 0: not stated"""
    key_refused: bool = False


class LlamaServer:
    """A running llama-server; `url` is its address, `timeout_s` bounds each call, and `deadline`, if given, all of
    them; `key` is the API key to send, `launched` its process, if it is ours. A failed call, and an answer of another
    shape, raises `ServerFailed`.
    """

    def __init__(
        self,
        url: str,
        home: Path,
        timeout_s: float,
        deadline: Deadline | None = None,
        *,
        key: str = "",
        launched: Launched | None = None,
    ) -> None:
        self.url = url
        self.pid = launched.pid if launched else 0
        self._launched = launched
        self._home = home
        self._timeout_s = timeout_s
        self._deadline = deadline
        self._key = key

    def loaded(self) -> Loaded | None:
        """Its build and its model, once that is loaded; None before."""
        if self._ask("GET", "/health", _Health).status != "ok":
            return None
        with self._call("GET", "/props") as answer:
            if answer.status == HTTPStatus.UNAUTHORIZED:
                return Loaded(key_refused=True)
            found = self._read(answer, _Properties)
        build, context = printable(found.build_info).partition("-")[0], found.default_generation_settings.n_ctx
        return Loaded(build=build, model=found.model_path, context=context)

    def end(self, within: float = 0.0) -> str:
        """How its process ended, now or within some seconds; empty while it runs, and where it is unknown."""
        return self._launched.end(within) if self._launched else ""

    def explain(self, error: ToolchainError) -> ToolchainError:
        """A failed call with more detail: how the server ended, and what its log says of it."""
        how = self.end(_END_S)
        if not how or self._launched is None:
            return error
        said = self._launched.errors().rstrip()
        return type(error)(f"{error.message}\nllama-server {how}\n{said}", hint=hint_on(how, error.hint))

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text, with those that the model adds."""
        return list(self._ask("POST", "/tokenize", Tokens, {"content": text, "add_special": True}).tokens)

    def complete(self, body: Mapping[str, Any]) -> Completion:
        """The answer of /completion to a request."""
        return self._ask("POST", "/completion", Completion, body)

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[bytes]:
        """The events of a streamed answer, as they come, each one JSON document."""
        with self._call("POST", path, {**body, "stream": True}) as answer:
            if not answer.ok:
                raise ServerFailed(
                    f"{answer.where}: {answer.status}: {printable(answer.body().decode(errors='replace'))}"
                )
            for line in answer.lines():
                name, _, data = line.partition(b":")
                if name == b"error":
                    raise ServerFailed(f"{answer.where}: {printable(data.decode(errors='replace'))}")
                if name == b"data" and data.strip() != b"[DONE]":
                    yield data

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A chat as the prompt that the model's template makes of it."""
        return self._ask("POST", "/apply-template", _Prompt, {"messages": list(messages)}).prompt

    def _ask(self, method: str, path: str, kind: type[R], body: Mapping[str, Any] | None = None) -> R:
        with self._call(method, path, body) as answer:
            return self._read(answer, kind)

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[transport.Answer]:
        deadline = self._deadline.within(self._timeout_s) if self._deadline else Deadline(self._timeout_s)
        return transport.call(
            self.url, method, path, deadline=deadline, json=body, most_bytes=_MOST_BYTES, key=self._key
        )

    @staticmethod
    def _read(answer: transport.Answer, kind: type[R]) -> R:
        data = answer.body()
        if not answer.ok:
            raise ServerFailed(f"{answer.where}: answers {answer.status}: {printable(data.decode(errors='replace'))}")
        return transport.decode(data, kind, answer.where, _EXPECTED)

    def read(self, prompt: str | Sequence[int]) -> None:
        """Fill the cache with a prompt: a text, or tokens."""
        words = prompt if isinstance(prompt, str) else list(prompt)
        self.complete({"prompt": words, "n_predict": 1, "cache_prompt": True, "temperature": 0})

    def save(self) -> Path:
        """Save the cache to a file. Raises `StateInvalid` when its length is not the announced one."""
        written = self._ask("POST", "/slots/0?action=save", _Saved, {"filename": _SLOT_FILE}).n_written
        path = self._home / _SLOT_FILE
        if not path.is_file() or path.stat().st_size != written:
            raise StateInvalid(f"{path}: the saved slot does not have the announced {written} bytes")
        return path


@contextlib.contextmanager
def serve(
    program: Path,
    model: Path,
    *,
    home: Path,
    context: int,
    timeout_s: float,
    cache_type: str = "f16",
    threads: int = 0,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[LlamaServer]:
    """Run llama-server with `model` loaded; it is killed on exit. Its output goes to `home`/server.log.

    `cache_type` is a setting as `toolchain.core.cachetypes.grammar` reads it; `arguments` are further ones. Variables
    of llama.cpp are removed from the environment; `environment` is added. With `threads` 0 llama.cpp chooses. Raises
    `ReleaseInvalid` without a program, `ModelLoadFailed`, and `ServerFailed` with the log's end when a call fails.
    """
    path = require_program(program, "--server names a llama-server, --release a release")
    port = claim_port()
    url, types = f"http://127.0.0.1:{port}", grammar.parse(cache_type)
    argv = [str(path), "--model", str(model.absolute()), "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--ctx-size", str(context), "--parallel", "1", "--log-verbosity", INFORMATIVE]
    argv += ["--cache-type-k", str(types.k), "--cache-type-v", str(types.v)]
    argv += ["--slot-save-path", f"{home}/", "--cache-ram", "0"]
    argv += ["--threads", str(threads)] if threads else []
    argv += arguments
    given = {"GGML_NO_BACKTRACE": "1", **(environment or {})}  # a debugger's backtrace hides the reason
    with launch(argv, home=home, log=home / "server.log", base=own_environment(), env=given) as launched:
        if not launched.wait_until(lambda: _is_ready(url), timeout_s):
            how = launched.end() or f"took over {timeout_s:g} s"
            raise ModelLoadFailed(
                f"{model}: llama-server {how}\n{launched.errors()}".rstrip(),
                hint=hint_on(how, "does llama.cpp run this model?"),
            )
        server = LlamaServer(url, home, timeout_s, launched=launched)
        try:
            yield server
        except ServerFailed as error:
            how = server.end(_END_S)
            said = "\n".join(filter(None, (error.message, how and f"llama-server {how}", launched.tail().rstrip())))
            raise ServerFailed(said, hint=hint_on(how, error.hint)) from error


def own_environment() -> dict[str, str]:
    """The operator's environment without variables of llama.cpp or of the dynamic linker."""
    foreign = ("LLAMA_", "GGML_", "LD_", "DYLD_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def _is_ready(url: str) -> bool:
    """Whether the model is loaded."""
    with (
        contextlib.suppress(ServerFailed),
        transport.call(url, "GET", "/health", deadline=Deadline(_HEALTH_S)) as answer,
    ):
        return answer.ok
    return False
