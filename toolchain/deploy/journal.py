"""The intent journal: what a deploy is about to do, on the disk before it does it.

A deploy that is killed leaves journal.json behind. The next command reads which step was under way, and finishes
or undoes the deploy (recovery.py).
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ..core import records
from ..core.records import record

Operation = Literal["install", "rollback", "uninstall"]

BEFORE_SWAP = ("copy", "environment", "shim")
"""steps that change nothing that runs: undone by deleting"""
FROM_SWAP = ("swap", "unit", "restart", "health", "bless", "prune")
"""steps after which going on is as good as going back"""
AFTER_HEALTH = ("bless", "prune")
"""steps that only write down what was found"""
RESTORE = "restore"
"""the step of going back to the release before, after a failed health check"""
INSTALL_STEPS = (*BEFORE_SWAP, *FROM_SWAP)
ROLLBACK_STEPS = FROM_SWAP[:-1]
UNINSTALL_STEPS = ("unload", "remove")
_FORMER_STEPS = {"plist": "unit", "bootout": "unload"}
"""names of steps in a journal that an earlier version of this toolkit left behind"""

TRIES = 2
"""how often a deploy that was killed is tried again before it is undone: a release that takes the machine down
during its health check must not do so at every command from then on"""

KILL_VARIABLE = "TURBOQUANT_TEST_KILL_AT"
"""fault injection: names the step at whose beginning the process kills itself, as kill -9 or a power cut would"""


@record
class JournalEntry:
    """journal.json."""

    operation: Operation
    step: str
    release: str
    """the release that shall become active; empty for an uninstall"""
    previous: str
    """the release that was active; empty when none was"""
    source: str = ""
    """the release directory that is copied in; empty when it was there before"""
    environment_before: str | None = None
    """text of the environment file that a release of the same id had before"""
    log_offset: int = 0
    """size of the service's log when the new release was started"""
    tries_left: int = TRIES
    pid: int = 0


class Journal:
    """The journal of one prefix. `begin` writes it, `clear` removes it; in between each step is announced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entry: JournalEntry | None = None

    @property
    def entry(self) -> JournalEntry:
        """What is under way."""
        assert self._entry is not None, "no deploy is under way"
        return self._entry

    def read(self) -> JournalEntry | None:
        """The entry of an interrupted deploy, which becomes the current one. Raises `RecordError`."""
        self._entry = None
        if self._path.exists():
            entry = records.read(self._path, JournalEntry)
            self._entry = replace(entry, step=_FORMER_STEPS.get(entry.step, entry.step))
        return self._entry

    def begin(self, entry: JournalEntry) -> None:
        """Announce an operation and its first step."""
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
        """Announce a step. On the disk when this returns."""
        self._entry = replace(self.entry, step=step)
        records.write(self._path, self._entry)
        if os.environ.get(KILL_VARIABLE) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def clear(self) -> None:
        """The operation has ended, well or not, and left nothing to do."""
        self._path.unlink(missing_ok=True)
        records.flush_directory(self._path.parent)
        self._entry = None
