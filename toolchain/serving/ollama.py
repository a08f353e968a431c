"""A client of Ollama's HTTP API: the few calls that verification and health checks need.

Every failure has the server's own message. A server that does not answer, or breaks off, is `ServerFailed`; one that
answers that it cannot load or import a model is `ModelLoadFailed`. An answer of another shape than Ollama's is
`ServerFailed`, too.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from ..core.deadline import Deadline
from ..core.errors import ModelLoadFailed, ServerFailed, ToolchainError
from ..core.printable import printable
from ..core.records import record, sha256_file
from . import transport

R = TypeVar("R")
_POLL_S = 0.05
_NANOSECONDS = 1e9
_EXPECTED = "an Ollama"
_FROM = re.compile(r"^FROM .{0,4096}\bsha256-([0-9a-f]{64})$", re.MULTILINE)

DEFAULT_PORT = 11434
"""the default port of Ollama.app and Homebrew's service"""


_Count = Annotated[int, Meta(ge=0, le=2**31)]
_Bytes = Annotated[int, Meta(ge=0, le=2**50)]
_Nanoseconds = Annotated[int, Meta(ge=0, le=10**18)]


@record
class _Version:
    version: str


@record
class _Model:
    name: str
    size_vram: _Bytes = 0


@record
class _Models:
    models: tuple[_Model, ...] | None = None


@record
class _Shown:
    modelfile: str = ""


@record
class _Refusal:
    error: str


@record
class _Progress:
    """A line of /api/create."""

    status: str = ""
    error: str = ""


@record
class _Piece:
    """A line of /api/generate; what is said of the whole is in the last one."""

    response: str = ""
    done: bool = False
    done_reason: str = ""
    eval_count: _Count = 0
    prompt_eval_count: _Count = 0
    load_duration: _Nanoseconds = 0
    prompt_eval_duration: _Nanoseconds = 0
    eval_duration: _Nanoseconds = 0
    error: str = ""


@record
class Generation:
    """The result of one call of /api/generate. Counts are tokens, times are seconds."""

    text: str
    eval_count: int
    prompt_eval_count: int
    done_reason: str
    """`length` when num_predict ended it, `stop` for an end token"""
    load_s: float
    prompt_s: float
    eval_s: float


class OllamaClient:
    """Calls one server. `timeout` (seconds) bounds every single call, a model load or generation and the reading of
    its answer included; `deadline`, if given, bounds all of them.
    """

    def __init__(self, base_url: str, timeout: float = 60.0, deadline: Deadline | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self._deadline = deadline

    def version(self) -> str:
        """The version that the server was built with. Raises `ServerFailed`."""
        return printable(self._get("/api/version", _Version).version)

    def names(self) -> tuple[str, ...]:
        """Names of the models in the server's store, such as probe:latest. Raises `ServerFailed`."""
        return tuple(printable(model.name) for model in self._get("/api/tags", _Models).models or ())

    def digest(self, name: str) -> str:
        """SHA-256 of a model's file, as its Modelfile names it; empty if it does not. Raises `ServerFailed`."""
        with self._call("POST", "/api/show", json={"model": name}, refused=ServerFailed) as answer:
            found = transport.decode(answer.body(), _Shown, answer.where, _EXPECTED)
        match = _FROM.search(found.modelfile)
        return match[1] if match else ""

    def loaded(self) -> int:
        """How many models are in memory, each with a runner. Raises `ServerFailed`."""
        return len(self._get("/api/ps", _Models).models or ())

    def on_gpu(self, name: str) -> int:
        """Bytes of a loaded model that are on a GPU; 0 for one that is not loaded. Raises `ServerFailed`."""
        loaded = self._get("/api/ps", _Models).models or ()
        return sum(model.size_vram for model in loaded if model.name in (name, f"{name}:latest"))

    def create_from_gguf(self, name: str, path: Path) -> None:
        """Import a GGUF file as the model `name`.

        The blob is uploaded only when the store lacks it. Raises `ModelLoadFailed` when the server refuses the
        file, `ServerFailed` when it does not answer.
        """
        digest = f"sha256:{sha256_file(path)}"
        with self._call("HEAD", f"/api/blobs/{digest}", refused=None) as answer:
            known = answer.ok
        if not known:
            with path.open("rb") as file:
                self._tell("POST", f"/api/blobs/{digest}", data=file, refused=ModelLoadFailed)
        body = {"model": name, "files": {path.name: digest}}
        status = ""
        for line in self._stream("/api/create", body, _Progress, refused=ModelLoadFailed):
            if line.error:
                raise ModelLoadFailed(f"{self.base_url}/api/create: {printable(line.error)}")
            status = line.status
        if status != "success":
            ended = printable(status)
            raise ModelLoadFailed(f"{self.base_url}: the import of {name} ended with {ended!r}, not with success")

    def generate(
        self,
        name: str,
        prompt: str,
        num_predict: int,
        options: Mapping[str, Any] | None = None,
        *,
        raw: bool = True,
        keep_alive: str | int | None = None,
    ) -> Generation:
        """Generate up to `num_predict` tokens at temperature 0, loading the model first where needed.

        `options` are Ollama's runner options (num_ctx, seed, ...), over the defaults here. `raw` passes the prompt
        on without a template. Raises `ModelLoadFailed` when the server answers with an error before the first
        token, `ServerFailed` when it breaks off after that or does not answer.
        """
        body: dict[str, Any] = {
            "model": name,
            "prompt": prompt,
            "raw": raw,
            "options": {"temperature": 0, "seed": 1, **(options or {}), "num_predict": num_predict},
        }
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        pieces: list[str] = []
        last = _Piece()
        for last in self._stream("/api/generate", body, _Piece, refused=ModelLoadFailed):
            if last.error:
                raise ServerFailed(f"{self.base_url}/api/generate: {printable(last.error)}")
            pieces.append(last.response)
        text = "".join(pieces)
        if not last.done:
            raise ServerFailed(f"{self.base_url}: the answer to /api/generate broke off after {len(text)} characters")
        return Generation(
            text=text,
            eval_count=last.eval_count,
            prompt_eval_count=last.prompt_eval_count,
            done_reason=last.done_reason,
            load_s=last.load_duration / _NANOSECONDS,
            prompt_s=last.prompt_eval_duration / _NANOSECONDS,
            eval_s=last.eval_duration / _NANOSECONDS,
        )

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[bytes]:
        """The lines of a streamed answer, as they come, each one JSON document. Raises as `generate` does."""
        with self._call("POST", path, json=body, refused=ModelLoadFailed) as answer:
            yield from answer.lines()

    def delete(self, name: str) -> None:
        """Remove a model from the store. Raises `ServerFailed`, also for an unknown name."""
        self._tell("DELETE", "/api/delete", json={"model": name}, refused=ServerFailed)

    def wait_until_ready(
        self, seconds: float, *, version: str = "", check_alive: Callable[[], None] = lambda: None
    ) -> str:
        """Wait until the server answers /api/version, and return the version.

        `check_alive` is called between tries and raises when the process is gone. An answer with another version than
        `version`, if given, comes from another server and raises `ServerFailed` at once.
        """
        deadline = time.monotonic() + seconds
        while True:
            check_alive()
            try:
                found = self.version()
            except ServerFailed as error:
                if time.monotonic() >= deadline:
                    raise ServerFailed(f"{error.message} (waited {seconds:g} s)", hint=error.hint) from error
                time.sleep(_POLL_S)
                continue
            if version and found != version:
                raise ServerFailed(
                    f"{self.base_url}: version {found!r} answers, expected {version!r}",
                    hint="another Ollama is listening there; stop it or choose another port",
                )
            return found

    def _get(self, path: str, kind: type[R]) -> R:
        with self._call("GET", path, refused=ServerFailed) as answer:
            return transport.decode(answer.body(), kind, answer.where, _EXPECTED)

    def _tell(self, method: str, path: str, *, refused: type[ToolchainError], **content: Any) -> None:
        with self._call(method, path, refused=refused, **content):
            pass  # only the status matters

    @contextlib.contextmanager
    def _call(
        self, method: str, path: str, *, refused: type[ToolchainError] | None, **content: Any
    ) -> Iterator[transport.Answer]:
        """One call. An error status raises `refused` with the server's message, unless that is None."""
        deadline = self._deadline.within(self.timeout) if self._deadline else Deadline(self.timeout)
        with transport.call(self.base_url, method, path, deadline=deadline, **content) as answer:
            if refused is not None and not answer.ok:
                raise refused(f"{answer.where}: {_message(answer)}")
            yield answer

    def _stream(
        self, path: str, body: Mapping[str, Any], kind: type[R], *, refused: type[ToolchainError]
    ) -> Iterator[R]:
        """The lines of a streamed answer."""
        with self._call("POST", path, json=body, refused=refused) as answer:
            for line in answer.lines():
                yield transport.decode(line, kind, answer.where, _EXPECTED)


def _message(answer: transport.Answer) -> str:
    """The server's own message: Ollama reports errors as {"error": "..."}."""
    with contextlib.suppress(ServerFailed):
        if said := printable(transport.decode(answer.body(), _Refusal, answer.where, _EXPECTED).error):
            return said
    return f"HTTP status {answer.status} {answer.reason}"
