"""A client of Ollama's HTTP API: the few calls that verification and health checks need.

Every failure has the server's own message. A server that does not answer, or breaks off, is `ServerFailed`; one that
answers that it cannot load or import a model is `ModelLoadFailed`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

from ..core.errors import ModelLoadFailed, ServerFailed, ToolchainError
from ..core.records import record, sha256_file

_POLL_S = 0.05
_NANOSECONDS = 1e9

DEFAULT_PORT = 11434
"""the default port of Ollama.app and Homebrew's service"""


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
    """Calls one server. `timeout` (seconds) bounds every single call, a model load or generation included."""

    def __init__(self, base_url: str, timeout: float = 60.0) -> None:
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout

    def version(self) -> str:
        """The version that the server was built with. Raises `ServerFailed`."""
        return str(self._json("GET", "/api/version").get("version", ""))

    def names(self) -> tuple[str, ...]:
        """Names of the models in the server's store, such as probe:latest. Raises `ServerFailed`."""
        return tuple(str(model["name"]) for model in self._json("GET", "/api/tags").get("models") or ())

    def create_from_gguf(self, name: str, path: Path) -> None:
        """Import a GGUF file as the model `name`.

        The blob is uploaded only when the store lacks it. Raises `ModelLoadFailed` when the server refuses the
        file, `ServerFailed` when it does not answer.
        """
        digest = f"sha256:{sha256_file(path)}"
        if self._call("HEAD", f"/api/blobs/{digest}", refused=None).status_code != requests.codes.ok:
            with path.open("rb") as file:
                self._call("POST", f"/api/blobs/{digest}", data=file, refused=ModelLoadFailed)
        body = {"model": name, "files": {path.name: digest}}
        status = ""
        for line in self._stream("/api/create", body, refused=ModelLoadFailed, broken=ModelLoadFailed):
            status = str(line.get("status", ""))
        if status != "success":
            raise ModelLoadFailed(f"{self.base_url}: the import of {name} ended with {status!r}, not with success")

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
        text, last = "", {}
        for last in self._stream("/api/generate", body, refused=ModelLoadFailed, broken=ServerFailed):
            text += str(last.get("response", ""))
        if not last.get("done"):
            raise ServerFailed(f"{self.base_url}: the answer to /api/generate broke off after {len(text)} characters")
        return Generation(
            text=text,
            eval_count=int(last.get("eval_count", 0)),
            prompt_eval_count=int(last.get("prompt_eval_count", 0)),
            done_reason=str(last.get("done_reason", "")),
            load_s=last.get("load_duration", 0) / _NANOSECONDS,
            prompt_s=last.get("prompt_eval_duration", 0) / _NANOSECONDS,
            eval_s=last.get("eval_duration", 0) / _NANOSECONDS,
        )

    def delete(self, name: str) -> None:
        """Remove a model from the store. Raises `ServerFailed`, also for an unknown name."""
        self._call("DELETE", "/api/delete", json={"model": name}, refused=ServerFailed)

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

    def _json(self, method: str, path: str) -> dict[str, Any]:
        response = self._call(method, path, refused=ServerFailed)
        try:
            data = response.json()
        except requests.JSONDecodeError:
            data = None
        if not isinstance(data, dict):
            raise ServerFailed(f"{self.base_url}{path}: not an Ollama; the answer was {response.text[:80]!r}")
        return data

    def _call(
        self, method: str, path: str, *, refused: type[ToolchainError] | None, **arguments: Any
    ) -> requests.Response:
        """One request. An error status raises `refused` with the server's message, unless that is None."""
        try:
            with requests.Session() as session:
                session.trust_env = False  # never use a proxy for a local server
                response = session.request(method, self.base_url + path, timeout=self.timeout, **arguments)
        except requests.RequestException as error:
            raise ServerFailed(f"{self.base_url}{path}: no answer: {_cause(error)}") from error
        if refused is not None and not response.ok:
            with response:
                raise refused(f"{self.base_url}{path}: {_message(response)}")
        return response

    def _stream(
        self, path: str, body: Mapping[str, Any], *, refused: type[ToolchainError], broken: type[ToolchainError]
    ) -> Iterator[dict[str, Any]]:
        """The JSON lines of a streamed answer; an `error` line raises `broken` with its text."""
        deadline = time.monotonic() + self.timeout
        with self._call("POST", path, json=body, stream=True, refused=refused) as response:
            try:
                for line in response.iter_lines():
                    if not line:
                        continue
                    data = json.loads(line)
                    if "error" in data:
                        raise broken(f"{self.base_url}{path}: {data['error']}")
                    yield data
                    if time.monotonic() > deadline:
                        raise ServerFailed(f"{self.base_url}{path}: not finished after {self.timeout:g} s")
            except requests.RequestException as error:
                raise ServerFailed(f"{self.base_url}{path}: the answer broke off: {_cause(error)}") from error
            except ValueError as error:
                raise ServerFailed(f"{self.base_url}{path}: not an Ollama: {error}") from error


def _message(response: requests.Response) -> str:
    """The server's own message: Ollama reports errors as {"error": "..."}."""
    try:
        data = response.json()
    except requests.RequestException:
        data = None
    if isinstance(data, dict) and data.get("error"):
        return str(data["error"])
    return f"HTTP status {response.status_code} {response.reason}"


def _cause(error: BaseException) -> str:
    """The innermost reason of a failed request, without urllib3's wrapping."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__
