"""A release's Ollama, started for one purpose on a loopback port of its own, and gone without a trace afterwards."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from ..core.errors import PortInUse, ReleaseInvalid, ServerFailed, ToolchainError
from ..core.process import TAIL_LINES, kill_group
from .ollama import OllamaClient

_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_COMPLAINT = re.compile(r"error|assert|fatal", re.IGNORECASE)
_SETTLE_S = 3.0
_POLL_S = 0.02


class Server:
    """A running server. `client` calls it, `log` is what it and its llama-server children say."""

    def __init__(self, process: subprocess.Popen[bytes], client: OllamaClient, log: Path) -> None:
        self._process = process
        self.client = client
        self.log = log
        self.pid = process.pid

    def check_alive(self) -> None:
        """Raise when the process has ended: `PortInUse` when its log says so, else `ServerFailed` with its tail."""
        returncode = self._process.poll()
        if returncode is None:
            return
        tail = self.tail()
        if "address already in use" in tail:
            raise PortInUse(f"{self.client.base_url} is taken by another program", hint="choose another port")
        how = f"was killed by signal {-returncode}" if returncode < 0 else f"ended with {returncode}"
        raise ServerFailed(f"the server {how}\n  log: {self.log}\n  last lines:\n{tail}".rstrip())

    def explain(self, error: ToolchainError) -> ToolchainError:
        """A failed call's fuller reason: that the server died of it, or what llama-server complained about."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5 if isinstance(error, ServerFailed) else 0)
        try:
            self.check_alive()
        except ToolchainError as death:
            return death
        lines = [line.strip() for line in self.tail().splitlines()]
        complaints = [line for line in lines if _COMPLAINT.search(line) and not line.startswith(("time=", "[GIN]"))]
        return type(error)("\n    ".join([error.message, *list(dict.fromkeys(complaints))[-3:]]), hint=error.hint)

    def tail(self) -> str:
        """The last lines of the log, indented for a message."""
        with self.log.open(encoding="utf-8", errors="replace") as file:
            return "".join(f"    {line.rstrip()}\n" for line in deque(file, maxlen=TAIL_LINES))

    def mark(self) -> int:
        """The log's present end, for `said_since`."""
        return self.log.stat().st_size

    def said_since(self, mark: int, *, until: str) -> str:
        """What the log gained since `mark`.

        llama-server writes its log from a thread of its own, so that a line can come after the answer that it
        belongs to: wait up to 3 s until the text holds `until`.
        """
        deadline = time.monotonic() + _SETTLE_S
        while True:
            with self.log.open("rb") as file:
                file.seek(mark)
                text = file.read().decode(errors="replace")
            complete = text[: text.rfind("\n") + 1]
            if until in complete or time.monotonic() > deadline or self._process.poll() is not None:
                return complete
            time.sleep(_POLL_S)


@contextlib.contextmanager
def serve(
    release_dir: Path,
    *,
    version: str,
    home: Path,
    log: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    ready_s: float = 30.0,
    port: int = 0,
) -> Iterator[Server]:
    """Start `release_dir`/bin/ollama and wait until it answers with `version`.

    It gets a clean environment (nothing of the operator's OLLAMA_* or LLAMA_ARG_*) with `environment` laid over
    it, `home` for its home, keys, temporary files and models, and a free loopback port unless `port` names one.
    `timeout_s` bounds each call of its client. On leaving, the server and everything that it started are killed.
    Raises `ReleaseInvalid` without a binary, `PortInUse`, and `ServerFailed` when it dies or is never ready.
    """
    binary = release_dir / "bin" / "ollama"
    if not (binary.is_file() and os.access(binary, os.X_OK)):
        raise ReleaseInvalid(f"{binary}: no such program", hint="./inv build makes the release directory")
    port = _claim(port)
    home = home.resolve()
    temporary = home / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        try:
            process = subprocess.Popen(
                [str(binary.resolve()), "serve"],
                cwd=home,
                env={
                    "PATH": _PATH,
                    "HOME": str(home),
                    "TMPDIR": str(temporary),
                    "OLLAMA_HOST": f"127.0.0.1:{port}",
                    "OLLAMA_MODELS": str(home / "models"),
                    "OLLAMA_NUM_PARALLEL": "1",
                    "OLLAMA_NO_CLOUD": "1",
                    "GGML_NO_BACKTRACE": "1",  # a debugger's view of an abort takes seconds and buries its reason
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerFailed(
                f"{binary} cannot be started: {error.strerror or error}", hint="was it built for this machine?"
            ) from error
    try:
        server = Server(process, OllamaClient(f"http://127.0.0.1:{port}", timeout_s), log)
        server.client.wait_until_ready(ready_s, version=version, check_alive=server.check_alive)
        server.check_alive()  # it may have lost the port to a server that answers just the same
        yield server
    finally:
        _kill(process)


def _claim(port: int) -> int:
    """A loopback port that nobody listens on: `port`, or any when that is 0. Raises `PortInUse`."""
    with socket.socket() as probe:
        # As Go does it, so that connections of an earlier server that linger do not count as a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise PortInUse(
                f"127.0.0.1:{port} is taken by another program", hint="stop it, or choose another port"
            ) from error
        return int(probe.getsockname()[1])


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the server, its process group, and any descendant that left the group."""
    descendants: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        descendants = psutil.Process(process.pid).children(recursive=True)
    kill_group(process.pid)
    for child in descendants:
        with contextlib.suppress(psutil.Error):
            child.kill()
    process.wait()
    deadline = time.monotonic() + _SETTLE_S
    while any(map(_runs, descendants)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _runs(process: psutil.Process) -> bool:
    """Whether it still does anything; a zombie, which only waits for its parent, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
