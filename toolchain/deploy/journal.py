"""The intent journal: each step of a deploy is written to disk before it is taken.

A deploy that is killed leaves journal.json behind. The next command reads its step, and finishes or undoes
the deploy (recovery.py).
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ..core import records
from ..core.errors import RecordError
from ..core.records import record
from . import environment
from .prefix import is_release_id

Operation = Literal["install", "rollback", "uninstall"]

BEFORE_SWAP = ("copy", "environment", "shim")
"""steps before anything running is changed: undone by deleting files"""
FROM_SWAP = ("swap", "unit", "restart", "health", "bless", "prune")
"""steps from which the deploy is finished rather than undone"""
AFTER_HEALTH = ("bless", "prune")
"""steps that only record the result"""
RESTORE = "restore"
"""the step that restores the previous release, after a failed health check"""
INSTALL_STEPS = (*BEFORE_SWAP, *FROM_SWAP)
ROLLBACK_STEPS = FROM_SWAP[:-1]
UNINSTALL_STEPS = ("unload", "remove")
_FORMER_STEPS = {"plist": "unit", "bootout": "unload"}
"""former names of steps, in a journal of an earlier version of this toolkit"""

_STEPS: dict[str, tuple[str, ...]] = {
    "install": (*INSTALL_STEPS, RESTORE),
    "rollback": (*ROLLBACK_STEPS, *FROM_SWAP[-1:], RESTORE),
    "uninstall": UNINSTALL_STEPS,
}

TRIES = 2
"""how often a killed deploy is retried before it is undone: a release that crashes the machine during its health
check must not do so again at every later command"""

KILL_VARIABLE = "TURBOQUANT_TEST_KILL_AT"
"""fault injection: the step at whose beginning the process kills itself, like kill -9 or a power cut"""


@record
class JournalEntry:
    """journal.json."""

    operation: Operation
    step: str
    release: str
    """the release to activate; empty for an uninstall"""
    previous: str
    """the release that was active before; may be empty"""
    environment_before: str | None = None
    """previous environment file of a release with this id"""
    log_offset: int = 0
    """size of the service's log when the new release was started"""
    tries_left: int = TRIES
    pid: int = 0


class Journal:
    """The journal of one prefix. `begin` writes it, each step is recorded before it is taken, `clear` removes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entry: JournalEntry | None = None

    @property
    def entry(self) -> JournalEntry:
        """The current entry."""
        assert self._entry is not None, "no deploy is in progress"
        return self._entry

    def read(self) -> JournalEntry | None:
        """The entry of an interrupted deploy, which becomes the current one.

        Raises `RecordError`, also for what no deploy writes: its names become paths.
        """
        self._entry = None
        if os.path.lexists(self._path):
            entry = records.read(self._path, JournalEntry, follow=False)
            entry = replace(entry, step=_FORMER_STEPS.get(entry.step, entry.step))
            if wrong := _doubt(entry):
                raise RecordError(f"{self._path}: {wrong}", hint="delete it")
            self._entry = entry
        return self._entry

    def begin(self, entry: JournalEntry) -> None:
        """Record an operation and its first step."""
        self._entry = replace(entry, pid=os.getpid())
        self.begin_step(entry.step)

    def note(self, *, log_offset: int | None = None, tries_left: int | None = None) -> None:
        """Add a fact to the entry."""
        if log_offset is not None:
            self._entry = replace(self.entry, log_offset=log_offset)
        if tries_left is not None:
            self._entry = replace(self.entry, tries_left=tries_left)
        records.write(self._path, self.entry)

    def begin_step(self, step: str) -> None:
        """Record a step; it is on the disk when this returns."""
        self._entry = replace(self.entry, step=step)
        records.write(self._path, self._entry)
        if os.environ.get(KILL_VARIABLE) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def clear(self) -> None:
        """Delete the journal: the operation has ended and nothing remains to be done."""
        self._path.unlink(missing_ok=True)
        records.flush_directory(self._path.parent)
        self._entry = None


def _doubt(entry: JournalEntry) -> str:
    """Why no deploy wrote this entry; empty if one did."""
    if entry.step not in _STEPS[entry.operation]:
        return f"{entry.step!r} is no step of {entry.operation}"
    for name in (entry.release, entry.previous):
        if name and not is_release_id(name):
            return f"{name!r} is not a release id"
    if not entry.release and entry.operation != "uninstall":
        return "it names no release"
    if entry.log_offset < 0 or entry.tries_left > TRIES:
        return "a number is out of range"
    return environment.doubt(entry.environment_before or "")
