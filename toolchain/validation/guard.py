"""Kills the servers that a `with` block starts as soon as the machine comes under memory pressure."""

from __future__ import annotations

import contextlib
import threading
from typing import Protocol

import psutil

from ..host.footprint import family

_EVERY_S = 0.2


class Pressure(Protocol):
    """See `toolchain.host.pressure.MemoryPressure`."""

    def reason(self) -> str:
        """Why to stop now; empty while there is no pressure."""
        ...


class Guard:
    """A thread that watches while the block runs. `tripped` says why it killed; empty if it did not.

    It kills the descendants of this process that were not there when the block began.
    """

    def __init__(self, pressure: Pressure) -> None:
        self.tripped = ""
        self._pressure = pressure
        self._before: frozenset[int] = frozenset()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory pressure", daemon=True)

    def __enter__(self) -> Guard:
        self._before = frozenset(family(psutil.Process().pid))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def look(self) -> None:
        """Look now, while a server still holds its memory: a fast answer may lie between two turns of the watch."""
        if not self.tripped:
            self.tripped = self._pressure.reason()

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            if why := self._pressure.reason():
                self.tripped = why
                self._kill()
                return

    def _kill(self) -> None:
        """Until the block has ended, since a server may just be starting."""
        while True:
            for pid in set(family(psutil.Process().pid)) - self._before:
                with contextlib.suppress(psutil.Error):
                    psutil.Process(pid).kill()
            if self._over.wait(_EVERY_S):
                return
