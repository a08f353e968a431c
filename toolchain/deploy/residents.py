"""Processes that have to end before a folder can be deleted: those that run from it, and those that work in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from . import processes

_END_S = 10.0


def end(folder: Path) -> tuple[psutil.Process, ...]:
    """SIGTERM, then SIGKILL, to what the emulator, which ends its jobs, leaves; twice ten seconds at most.

    Returns those that still run. This process and its parents stay.
    """
    if not folder.exists():
        return ()
    for stop in (psutil.Process.terminate, psutil.Process.kill):
        found = tuple(_of(folder.resolve()))
        for one in found:
            with contextlib.suppress(psutil.Error):
                stop(one)
        psutil.wait_procs(found, timeout=_END_S)
    return tuple(_of(folder.resolve()))


def _of(folder: Path) -> Iterator[psutil.Process]:
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    names = processes.spellings(folder)
    for one in psutil.process_iter():
        if one.pid not in ours and (_runs_from(one, names) or _works_in(one, folder)):
            yield one


def _runs_from(one: psutil.Process, names: set[str]) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return processes.runs_from(one, names)
    return False


def _works_in(one: psutil.Process, folder: Path) -> bool:
    """Whether it has its working directory there: not somebody's shell, which has a terminal."""
    with contextlib.suppress(psutil.Error, OSError):
        return Path(one.cwd()).is_relative_to(folder) and one.terminal() is None
    return False
