"""Copies of the shim on a machine, as launchd would start them in several domains.

    python -m tests.deploy.turns 100        so many ends of the copy that serves, with eight that wait

The program that they run holds a lock while it serves: two at once are noticed wherever it happens.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from toolchain.core.config import DeployConfig
from toolchain.deploy import shim
from toolchain.deploy.prefix import Prefix
from toolchain.service import placement

_PROGRAM = """#!{python} -IS
import fcntl, os, sys, time
root = {root!r}
with open(root + "/lock", "w") as lock:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        open(root + "/twice", "a").write(f"{{os.getpid()}}\\n")
    open(f"{{root}}/serving.{{os.getpid()}}", "w").close()
    time.sleep(1000)
"""
_LIMIT_S = 30.0


class Turns:
    """A prefix whose program says that it serves. `without_proc`: the shim knows processes by ps, as on macOS."""

    def __init__(self, folder: Path, *, without_proc: bool = False) -> None:
        self.prefix = Prefix(folder / "the prefix")
        self.log = folder / "log"
        self._folder = folder
        self._copies: dict[int, subprocess.Popen[bytes]] = {}
        release = self.prefix.releases / "one"
        (release / "bin").mkdir(parents=True)
        (release / "environment").write_text("A=1\n")
        (release / "bin/ollama").write_text(_PROGRAM.format(python=sys.executable, root=str(folder)))
        (release / "bin/ollama").chmod(0o755)
        self.prefix.current.symlink_to("releases/one")
        manager = placement.connect(DeployConfig(domain="system"), ("/bin/false",), {}, "")
        text = shim.render(self.prefix, manager, DeployConfig())
        self.prefix.shim.parent.mkdir()
        self.prefix.shim.write_bytes(text.replace(b"/proc/", b"/nowhere/") if without_proc else text)

    def start(self) -> int:
        """Start another copy; its pid."""
        with self.log.open("ab") as log:
            copy = subprocess.Popen(
                ["/bin/sh", self.prefix.shim],
                env={"PATH": "/usr/bin:/bin"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._copies[copy.pid] = copy
        return copy.pid

    def wait(self, pid: int) -> int:
        """The exit status of a copy."""
        return self._copies[pid].wait(_LIMIT_S)

    def serving(self) -> list[int]:
        """The copies whose program runs now."""
        for copy in self._copies.values():
            copy.poll()
        said = [int(path.suffix[1:]) for path in self._folder.glob("serving.*")]
        return [pid for pid in said if psutil.pid_exists(pid)]

    def await_serving(self, *pids: int) -> int:
        """Wait until one of them serves; its pid."""
        deadline = time.monotonic() + _LIMIT_S
        while not (found := set(self.serving()) & set(pids)):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)
        (pid,) = found
        return pid

    def await_told(self, pid: int) -> None:
        """Wait until a copy has said that it waits for that process."""
        deadline = time.monotonic() + _LIMIT_S
        while f"process {pid} serves already" not in self.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def survive(self, copies: list[int], kills: int, seed: int = 1) -> int:
        """End the copy that serves so many times; another is started for it. Returns how often another took over."""
        left, turns, rng = set(copies), 0, random.Random(seed)
        first = self.await_serving(*left)
        for _ in range(kills):
            time.sleep(rng.uniform(0, 0.3))
            os.kill(first, rng.choice((signal.SIGKILL, signal.SIGTERM)))
            self.wait(first)
            left.discard(first)
            left.add(self.start())
            first = self.await_serving(*left)
            turns += 1
        assert not (self._folder / "twice").exists(), (self._folder / "twice").read_text()
        return turns

    def close(self) -> None:
        """End all copies."""
        for copy in self._copies.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(copy.pid, signal.SIGKILL)
            copy.wait()


def main(kills: int) -> None:
    """Print how it went, with either way to know a process."""
    for without_proc in (False, True):
        with tempfile.TemporaryDirectory(prefix="turns-") as folder:
            turns = Turns(Path(folder), without_proc=without_proc)
            try:
                done = turns.survive([turns.start() for _ in range(9)], kills)
            finally:
                turns.close()
        print(f"{'ps' if without_proc else '/proc'}: {done} of {kills} ends, each time one other took over")  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))
