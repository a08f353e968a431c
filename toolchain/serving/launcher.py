"""A temporary server on a loopback port, which is killed together with all its descendants."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from ..core.errors import PortInUse, ReleaseInvalid, ServerFailed
from ..core.process import TAIL_LINES, Child, ending, kill_group, owned

_SETTLE_S = 3.0
_POLL_S = 0.02
_ERROR = re.compile(r"[\d.]{1,20} E (.{1,500})")
"""a line of llama.cpp's log with the level of an error"""
_MOST_ERRORS = 5
_ILLEGAL = re.compile(r"signal 4\b|illegal instruction", re.IGNORECASE)


class Launched:
    """A server's process; `log` is the output of it and its children."""

    def __init__(self, process: Child, log: Path) -> None:
        self._process = process
        self.pid = process.pid
        self.log = log

    def end(self, within: float = 0.0) -> str:
        """How it ended, now or within some seconds, as in "ended with 1"; empty while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return ending(self._process.wait(within))
        return ""

    def wait_until(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Poll `reached` until it is true; false if the server ends first, or the time is over."""
        deadline = time.monotonic() + seconds
        while not reached():
            if self.end() or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def tail(self) -> str:
        """The last lines of the log, indented for a message."""
        with self.log.open(encoding="utf-8", errors="replace") as file:
            return "".join(f"    {line.rstrip()}\n" for line in deque(file, maxlen=TAIL_LINES))

    def errors(self) -> str:
        """The first errors that llama.cpp's log states, which say why, indented; its last few lines if none."""
        with self.log.open(encoding="utf-8", errors="replace") as file:
            stated = dict.fromkeys(match[1].strip() for line in file if (match := _ERROR.match(line)))
        said = "".join(f"    {line}\n" for line in list(stated)[:_MOST_ERRORS])
        return said or "".join(self.tail().splitlines(keepends=True)[-_MOST_ERRORS:])


@contextlib.contextmanager
def launch(
    argv: Sequence[str | Path], *, home: Path, log: Path, base: Mapping[str, str], env: Mapping[str, str]
) -> Iterator[Launched]:
    """Start a program in the folder `home` with the environment `base` plus `env`, its output in the file `log`.

    On leaving, it, its process group and its descendants are killed. Raises `ServerFailed` when it cannot be started.
    """
    hint = "was it built for this machine?"
    with owned(argv, cwd=home, base=base, env=env, log=log, failure=ServerFailed, hint=hint) as process:
        try:
            yield Launched(process, log)
        finally:
            _kill(process)


def hint_on(said: str, otherwise: str) -> str:
    """What to try after a server ended as `said`: for an illegal instruction its own hint."""
    if not _ILLEGAL.search(said):
        return otherwise
    return (
        "the system refuses an instruction that ggml uses for repacked weights, such as AMX in a virtual machine: "
        "--set deploy.environment.LLAMA_ARG_REPACK=0"
    )


def require_program(path: Path, hint: str) -> Path:
    """Its absolute path. Raises `ReleaseInvalid`, with the hint, when there is no program at `path`."""
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise ReleaseInvalid(f"{path}: no such program", hint=hint)
    return path.absolute()


def claim_port(port: int = 0) -> int:
    """A free loopback port: `port`, or any if that is 0. Raises `PortInUse`."""
    with socket.socket() as probe:
        # As in Go, so that lingering connections of an earlier server do not count as a listener.
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


def _kill(process: Child) -> None:
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
    """Whether it still runs; a zombie, which only waits for its parent, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
