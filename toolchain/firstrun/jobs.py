"""Tiny jobs in launchd, or in its emulator, whose answers are kept."""

from __future__ import annotations

import os
import plistlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from ..core import records
from ..core.errors import CommandFailed
from ..service import launchctl_codes as codes
from ..service.launchctl import fields_of, state_of
from ..service.manager import ServiceState
from ..service.propertylist import SESSION_TYPES
from .bench import LABEL, Bench, Evidence

SHELL = "/bin/sh"
STAYS = "while :; do sleep 1 & wait $!; done"
"""a script that stays, and whose traps run at once"""
_START_S = 20.0
_GONE_S = 40.0
_POLL_S = 0.1


@dataclass(kw_only=True)
class TinyJob:
    """A job with a label, a property list and a log of its own, all in the run's folder. Booted out at the end."""

    bench: Bench
    name: str
    domain: str
    evidence: list[Evidence]
    loaded: bool = False
    """whether it may be loaded"""

    @classmethod
    def of(cls, bench: Bench, name: str, *words: str, domain: str = "", script: str = "", **keys: Any) -> Self:
        """Write its property list: it runs `words`, or a script of the shell, in every kind of session.

        `keys` are further ones of the property list; one that is None is left out.
        """
        job = cls(bench=bench, name=name, domain=domain or bench.manager.domain, evidence=[])
        records.make_folder(job.folder)
        content: dict[str, Any] = {
            "Label": job.label,
            "LimitLoadToSessionType": list(SESSION_TYPES),
            "ProgramArguments": [*words] if words else [SHELL, "-c", script],
            "RunAtLoad": True,
            "StandardOutPath": str(job.log),
            "StandardErrorPath": str(job.log),
        } | keys
        content = {key: value for key, value in content.items() if value is not None}
        records.write_bytes(job.plist, plistlib.dumps(content), mode=0o644)
        return job

    @property
    def label(self) -> str:
        """Its label."""
        return f"{LABEL}.{self.name}"

    @property
    def target(self) -> str:
        """As launchctl names it."""
        return f"{self.domain}/{self.label}"

    @property
    def folder(self) -> Path:
        """For its property list, its log and what it writes."""
        return self.bench.folder / "jobs" / self.name

    @property
    def plist(self) -> Path:
        """Its property list."""
        return self.folder / f"{self.label}.plist"

    @property
    def log(self) -> Path:
        """Its stdout and stderr."""
        return self.folder / "log"

    @property
    def said(self) -> str:
        """What is in its log."""
        return self.log.read_text(errors="replace") if self.log.is_file() else ""

    def call(self, *words: str) -> Evidence:
        """Run launchctl, and keep the answer as evidence."""
        seen = self.bench.launchctl(*words)
        self.evidence.append(seen)
        return seen

    def bootstrap(self) -> Evidence:
        """Load it. It is booted out at the end of the run, whatever comes."""
        self.bench.cleanup.callback(self._discard)
        self.loaded = True
        return self.call("bootstrap", self.domain, str(self.plist))

    def start(self) -> int:
        """Load it and wait until its process is there. Returns the pid. Raises `CommandFailed` when it is refused."""
        self.load()
        return self.runs()

    def load(self) -> None:
        """Load it. Raises `CommandFailed` with the code and the text when it is refused."""
        seen = self.bootstrap()
        if seen.code != 0:
            raise CommandFailed(f"{self.target}: {told(seen)}: {seen.output.strip()}")

    def bootout(self) -> Evidence:
        """Begin to unload it."""
        return self.call("bootout", self.target)

    def look(self) -> ServiceState:
        """Its state now; the call is no evidence."""
        seen = self.bench.launchctl("print", self.target)
        return state_of(fields_of(seen.output) if seen.code == 0 else {})

    def printed(self) -> Evidence:
        """Its state, as evidence."""
        return self.call("print", self.target)

    def runs(self) -> int:
        """Wait until its process is there. Returns the pid. Raises `ValueError` when it does not come."""
        return self.until(lambda state: state.running, "no process of it runs").pid

    def says(self, text: str, times: int = 1) -> None:
        """Wait until its log has the text. Raises `ValueError` when it does not come."""
        self.awaited(lambda: self.said.count(text) >= times, f"its log does not say {text!r}, but {self.said[-300:]!r}")

    def until(self, holds: Callable[[ServiceState], bool], otherwise: str, timeout_s: float = _START_S) -> ServiceState:
        """Wait for a state. Raises `ValueError` with `otherwise` when it does not come."""
        state = ServiceState(loaded=False)

        def looked() -> bool:
            nonlocal state
            state = self.look()
            return holds(state)

        self.awaited(looked, otherwise, timeout_s)
        return state

    def awaited(self, holds: Callable[[], bool], otherwise: str, timeout_s: float = _START_S) -> None:
        """Wait for anything. Raises `ValueError` with `otherwise` when it does not come."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > deadline:
                self.printed()
                raise ValueError(f"{self.target}: {otherwise}")
            time.sleep(_POLL_S)

    def gone(self) -> None:
        """Wait until its label is unknown. Raises `ValueError`."""
        self.until(lambda state: not state.loaded, "it is still loaded", _GONE_S)
        self.loaded = False

    def remove(self) -> None:
        """Boot it out. Its label is its own, so that nobody need wait until it is gone."""
        self.loaded = self.bootout().code not in (0, codes.NO_SUCH_PROCESS, codes.UNKNOWN_SERVICE)

    def _discard(self) -> None:
        if self.loaded:
            self.bench.launchctl("bootout", self.target)


class Watch:
    """Times the end of a process in the background, to a few milliseconds."""

    def __init__(self, pid: int) -> None:
        self._begun = time.monotonic()
        self.seconds = float("inf")
        self._thread = threading.Thread(target=self._wait, args=(pid,), daemon=True)
        self._thread.start()

    def ended(self, timeout_s: float) -> bool:
        """Wait for the end. Whether it came."""
        self._thread.join(timeout_s)
        return self.seconds != float("inf")

    def _wait(self, pid: int) -> None:
        while alive(pid):
            time.sleep(0.01)
        self.seconds = time.monotonic() - self._begun


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def user_domain() -> str:
    """user/UID of the caller."""
    return f"user/{os.getuid()}"


def screen_domain() -> str:
    """gui/UID of the caller, which exists while it is logged in at the screen."""
    return f"gui/{os.getuid()}"


def told(*seen: Evidence) -> str:
    """The exit codes, with their meanings: `37, Operation already in progress`."""
    return "; ".join(f"{_verb(one)} answered {codes.meaning(one.code)}" for one in seen)


def _verb(seen: Evidence) -> str:
    words = seen.command.split()
    known = ("bootstrap", "bootout", "enable", "disable", "kickstart", "kill", "print", "print-disabled", "managername")
    return next((word for word in words if word in known), words[-1])
