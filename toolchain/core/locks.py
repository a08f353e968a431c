"""Locks between runs: a file that one process holds, with its process id beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import LockHeld
from .records import write_bytes


def owner(path: Path) -> Path:
    """The file with the process id of the holder of the lock `path`."""
    return path.with_name(f"{path.name}.owner")


@contextmanager
def held(path: Path, busy: str, *, hint: str, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the lock `path`; its folder is created. The lock ends with the process.

    Waits `timeout_s` seconds for another holder. Raises `LockHeld` with the text `busy` and the holder's process
    id, and `OSError` when the lock cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, noted = FileLock(path), owner(path)
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout:
        holder = "unknown"
        with suppress(OSError):  # not written yet, or no longer there
            holder = noted.read_text().strip()
        raise LockHeld(f"{busy} (pid {holder})", hint=hint) from None
    try:
        write_bytes(noted, f"{os.getpid()}\n".encode())
        yield
    finally:
        noted.unlink(missing_ok=True)
        lock.release()
