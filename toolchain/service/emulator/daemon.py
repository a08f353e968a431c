"""The emulator's process: one for each root folder, started by the first command and gone when idle.

It is single-threaded; commands and jobs are coroutines. What launchd keeps across a login (the
loaded plists, the disable records) and what must not be orphaned (the pids) is in `table.json`; starting again after
the emulator was killed is like logging in again: left-over processes are ended, then the jobs are loaded anew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from dataclasses import field
from pathlib import Path

import psutil

from ...core import records
from ...core.records import record
from . import jobspec, settings
from .refused import Refused
from .sessions import Sessions
from .verbs import Verbs

SOCKET = "socket"
TABLE = "table.json"
LOCK = "daemon.lock"
_TICK_S = 0.25
_CLOCK_SLACK_S = 1.0


@record
class SavedJob:
    """A job that was loaded, with launchd's own copy of its plist."""

    domain: str
    path: str
    plist: str
    pid: int
    started: float
    """creation time of the process, so that a reused pid is not mistaken for it"""


@record
class Table:
    """The state that the emulator needs after it was killed."""

    jobs: tuple[SavedJob, ...] = ()
    disabled: dict[str, dict[str, bool]] = field(default_factory=dict)
    sessions: Sessions | None = None
    """None until the first login, logout or boot"""


class Daemon:
    """Serves the socket in `root`, which is also the current directory (socket paths are limited to 104 bytes)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._verbs = Verbs(self._save)
        self._clients = 0
        self._served_at = time.monotonic()
        self._loading = False
        self._ended = asyncio.Event()
        self._leaving = False

    async def serve(self) -> None:
        """Runs until it is idle with nothing loaded, its owner or folder is gone, or it is told to end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        self._restore()
        Path(SOCKET).unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._answer, path=SOCKET)
        try:
            while not self._ended.is_set() and not self._useless():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), _TICK_S)
        finally:
            self._leaving = not self._ended.is_set()
            server.close()
            Path(SOCKET).unlink(missing_ok=True)
            await self._verbs.stop_all()

    def _useless(self) -> bool:
        if not self._root.is_dir() or not Path(SOCKET).exists():
            return True
        owner = self._verbs.settings.owner_pid
        if owner and not psutil.pid_exists(owner):
            return True
        idle = time.monotonic() - self._served_at > self._verbs.settings.idle_s
        return idle and not self._clients and not self._verbs.jobs

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One command: a JSON list of words in, a JSON object out. A command continues if its client is gone."""
        self._clients += 1
        try:
            argv = json.loads(await reader.readline())
            if self._leaving:
                return  # without an answer its client starts the next daemon, and asks that one
            self._verbs.settings = settings.read(Path())
            code, out, err = await self._verbs.call(argv)
            writer.write(json.dumps({"code": code, "stdout": out, "stderr": err}).encode() + b"\n")
            await writer.drain()
        except (ConnectionError, json.JSONDecodeError):
            pass
        finally:
            writer.close()
            self._clients -= 1
            self._served_at = time.monotonic()
            if self._verbs.stopping:
                self._ended.set()

    def _save(self) -> None:
        if self._loading:
            return
        jobs = tuple(
            SavedJob(
                domain=job.domain,
                path=job.path,
                plist=job.data.decode("utf-8", "surrogateescape"),
                pid=job.pid,
                started=_started(job.pid),
            )
            for job in self._verbs.jobs.values()
            if not job.removing or job.pid
        )
        with contextlib.suppress(FileNotFoundError):  # the folder was deleted: the next tick ends the daemon
            records.write(Path(TABLE), Table(jobs=jobs, disabled=self._verbs.disabled, sessions=self._verbs.sessions))

    def _restore(self) -> None:
        self._verbs.settings = settings.read(Path())
        if not Path(TABLE).exists():
            return
        table = records.read(Path(TABLE), Table)
        self._verbs.disabled = {domain: dict(labels) for domain, labels in table.disabled.items()}
        self._verbs.sessions = table.sessions
        self._loading = True
        for loaded in table.jobs:
            _reap(loaded)
            if loaded.domain not in self._verbs.domains:
                continue  # its session ended
            data = loaded.plist.encode("utf-8", "surrogateescape")
            with contextlib.suppress(Refused):
                self._verbs.load(loaded.domain, loaded.path, jobspec.parse(data, loaded.path), data)
        self._loading = False


def _started(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time() if pid else 0.0
    except psutil.Error:
        return 0.0


def _reap(loaded: SavedJob) -> None:
    """End what a killed emulator left behind: the process, or the rest of its group if it is dead."""
    if not loaded.pid:
        return
    started = _started(loaded.pid)
    if started == 0.0 or abs(started - loaded.started) < _CLOCK_SLACK_S:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(loaded.pid, signal.SIGKILL)


def main(root: Path) -> int:
    """Serve `root`; 0 also when another emulator serves it already."""
    os.chdir(root)
    with Path(LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        asyncio.run(Daemon(root).serve())
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The launchd emulator; launchctl starts it on demand.")
    parser.add_argument("root", type=Path)
    sys.exit(main(parser.parse_args().root.resolve()))
