"""llama-server by itself, without Ollama: one slot on a loopback port, whose cache can be saved to a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from ..core.cachetypes import grammar
from ..core.errors import ModelLoadFailed, ServerFailed, StateInvalid
from .launcher import claim_port, launch, require_program

_SLOT_FILE = "slot.bin"
INFORMATIVE = "4"
"""llama.cpp's log level that includes the cache lines"""


class LlamaServer:
    """A running llama-server; `url` is its address. A failed call raises `ServerFailed`."""

    def __init__(self, url: str, home: Path, timeout_s: float) -> None:
        self.url = url
        self._home = home
        self._timeout_s = timeout_s

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object in the answer."""
        url = f"{self.url}{path}"
        try:
            with requests.Session() as session:
                session.trust_env = False
                answer = session.post(url, json=body, timeout=self._timeout_s)
                found = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise ServerFailed(f"{url}: no answer: {error}", hint="verify.timeout_s bounds each call") from error
        if answer.status_code != requests.codes.ok or not isinstance(found, dict):
            raise ServerFailed(f"{url}: answers {answer.status_code}: {answer.text[:500]}")
        return found

    def read(self, prompt: str | Sequence[int]) -> None:
        """Fill the cache with a prompt: a text, or tokens."""
        words = prompt if isinstance(prompt, str) else list(prompt)
        self.post("/completion", {"prompt": words, "n_predict": 1, "cache_prompt": True, "temperature": 0})

    def save(self) -> Path:
        """Save the cache to a file. Raises `StateInvalid` when its length is not the announced one."""
        written = int(self.post("/slots/0?action=save", {"filename": _SLOT_FILE}).get("n_written", 0))
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
    environment: Mapping[str, str] | None = None,
) -> Iterator[LlamaServer]:
    """Run llama-server with `model` loaded; it is killed on exit. Its output goes to `home`/server.log.

    `cache_type` is a setting as `toolchain.core.cachetypes.grammar` reads it. Variables
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
    with launch(argv, home=home, log=home / "server.log", base=own_environment(), env=environment or {}) as launched:
        if not launched.wait_until(lambda: _is_ready(url), timeout_s):
            how = launched.end() or f"took over {timeout_s:g} s"
            raise ModelLoadFailed(
                f"{model}: llama-server {how}\n{launched.tail()}".rstrip(), hint="does llama.cpp run this model?"
            )
        try:
            yield LlamaServer(url, home, timeout_s)
        except ServerFailed as error:
            raise ServerFailed(f"{error.message}\n{launched.tail()}".rstrip(), hint=error.hint) from error


def own_environment() -> dict[str, str]:
    """The operator's environment without variables of llama.cpp or of the dynamic linker."""
    foreign = ("LLAMA_", "GGML_", "LD_", "DYLD_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def _is_ready(url: str) -> bool:
    """Whether the model is loaded."""
    with contextlib.suppress(requests.RequestException), requests.Session() as session:
        session.trust_env = False
        return bool(session.get(f"{url}/health", timeout=5).status_code == requests.codes.ok)
    return False
