"""llama-server by itself, without Ollama: one slot on a loopback port, whose cache can be saved to a file."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from ..core.cachetypes import grammar
from ..core.errors import ModelLoadFailed, ReleaseInvalid, ServerFailed, StateInvalid
from ..core.process import TAIL_LINES, kill_group

_POLL_S = 0.05
_SLOT_FILE = "slot.bin"
_INFORMATIVE = "4"
"""the level of llama.cpp's log at which it states what its caches are"""


class LlamaServer:
    """A running llama-server; `url` is where it answers. Every call raises `ServerFailed` when it fails."""

    def __init__(self, url: str, home: Path, timeout_s: float) -> None:
        self.url = url
        self._home = home
        self._timeout_s = timeout_s

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that it answers with."""
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
        """Save the cache to a file. Raises `StateInvalid` when that is not as long as was announced."""
        written = int(self.post("/slots/0?action=save", {"filename": _SLOT_FILE}).get("n_written", 0))
        path = self._home / _SLOT_FILE
        if not path.is_file() or path.stat().st_size != written:
            raise StateInvalid(f"{path}: the saved slot is not of the {written} bytes that were announced")
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
    """llama-server with `model` loaded, and gone on leaving; what it says goes to `home`/server.log.

    `cache_type` is a setting as `toolchain.core.cachetypes.grammar` reads it. Of the operator's environment nothing
    that steers llama.cpp is left; `environment` is laid over the rest. `threads` is llama.cpp's own choice at 0. Raises
    `ReleaseInvalid` without a program, `ModelLoadFailed`, and `ServerFailed` with the log's end when a call fails.
    """
    if not os.access(program, os.X_OK) or program.is_dir():
        raise ReleaseInvalid(f"{program}: no such program", hint="--server names a llama-server, --release a release")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [str(program.absolute()), "--model", str(model.absolute()), "--host", "127.0.0.1", "--port", str(port)]
    types = grammar.parse(cache_type)
    argv += ["--ctx-size", str(context), "--parallel", "1", "--log-verbosity", _INFORMATIVE]
    argv += ["--cache-type-k", str(types.k), "--cache-type-v", str(types.v)]
    argv += ["--slot-save-path", f"{home}/", "--cache-ram", "0"]
    argv += ["--threads", str(threads)] if threads else []
    log = home / "server.log"
    with log.open("wb") as sink:
        try:
            process = subprocess.Popen(
                argv,
                env={**own_environment(), **(environment or {})},
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerFailed(f"{program} cannot be started: {error.strerror or error}") from error
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, url, model, log, timeout_s)
        try:
            yield LlamaServer(url, home, timeout_s)
        except ServerFailed as error:
            raise ServerFailed(f"{error.message}\n{_tail(log)}".rstrip(), hint=error.hint) from error
    finally:
        kill_group(process.pid)
        process.wait()


def own_environment() -> dict[str, str]:
    """The operator's environment without what steers llama.cpp, or makes a program load other libraries."""
    foreign = ("LLAMA_", "GGML_", "LD_", "DYLD_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def _wait(process: subprocess.Popen[bytes], url: str, model: Path, log: Path, timeout_s: float) -> None:
    """Until the model is loaded. Raises `ModelLoadFailed` with the log's end when it is not."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException), requests.Session() as session:
            session.trust_env = False
            if session.get(f"{url}/health", timeout=5).status_code == requests.codes.ok:
                return
        time.sleep(_POLL_S)
    how = f"ended with {process.returncode}" if process.returncode is not None else f"took over {timeout_s:g} s"
    raise ModelLoadFailed(f"{model}: llama-server {how}\n{_tail(log)}".rstrip(), hint="does llama.cpp run this model?")


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "".join(f"    {line}\n" for line in lines[-TAIL_LINES:])
