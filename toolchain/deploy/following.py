"""The service's log as it grows, with the restarts of its process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import ToolchainError
from ..core.records import record
from ..service import servicelog
from ..service.manager import Manager
from . import ownership

_POLL_S = 0.25
_INSPECT_S = 2.0


@record
class LogLine:
    """A line of the log."""

    log: str


@record
class Restarted:
    """The service's process is another one than before. `pid` is 0 while none runs."""

    restarted: bool = True
    pid: int
    last_end: str
    """how the process before ended, in the manager's words"""


def events(log: Path, manager: Manager, lines: int) -> Iterator[LogLine | Restarted]:
    """The last `lines` lines of the log, then its further ones and the restarts. Never ends.

    Raises `PrefixUnsafe` as soon as one of its files must not be read.
    """
    follower = servicelog.Follower(log, ownership.open_log)
    for line in servicelog.tail(log, lines, end=follower.begin, opened=ownership.open_log):
        yield LogLine(log=line)
    pid, inspected_at = _pid(manager)[0], time.monotonic()
    while True:
        for line in follower.lines():
            yield LogLine(log=line)
        if time.monotonic() - inspected_at > _INSPECT_S:
            now, last_end = _pid(manager)
            if now not in (pid, -1):
                yield Restarted(pid=now, last_end=last_end)
            pid, inspected_at = now if now >= 0 else pid, time.monotonic()
        time.sleep(_POLL_S)


def _pid(manager: Manager) -> tuple[int, str]:
    """The process id, and how the process before ended; -1: unknown for now."""
    with contextlib.suppress(ToolchainError):
        state = manager.inspect()
        return state.pid, state.last_end
    return -1, ""
