"""Locks between runs: a file that one process holds, with its process id in it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import LockHeld
from .records import make_folder

_POLL_S = 0.05
_PID_BYTES = 32


def holder(path: Path) -> int:
    """Process id in the lock `path`: of its holder, or of one that was killed; 0 if there is none."""
    with suppress(OSError, ValueError), path.open("rb") as file:
        return int(file.read(_PID_BYTES))
    return 0


@contextmanager
def held(path: Path, busy: str, *, hint: str, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the lock `path`; its folder is created. The lock ends with the process and its file stays, empty.

    Waits `timeout_s` seconds for another holder. Raises `LockHeld` with the text `busy` and the holder's process
    id, and `OSError` when the lock cannot be made.
    """
    make_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        with suppress(PermissionError):  # another user's, which this one may hold nevertheless
            os.fchmod(descriptor, 0o644)  # whatever the umask
        if not _acquired(descriptor, time.monotonic() + timeout_s):
            raise LockHeld(f"{busy} (pid {holder(path) or 'unknown'})", hint=hint)
        _note(descriptor, f"{os.getpid()}\n")
        try:
            yield
        finally:
            _note(descriptor, "")
    finally:
        os.close(descriptor)  # ends the lock


def _acquired(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)


def _note(descriptor: int, text: str) -> None:
    """Replace the content, which only informs: a full disk must not keep anyone from the lock."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
