"""Processes that a test started, or that were started for it."""

from __future__ import annotations

import time

import psutil


def ended(pid: int, *, within: float = 20) -> bool:
    """Whether a process ends within so many seconds; a zombie has ended.

    A kill is only delivered when it returns, and an orphan stays a zombie until init reaps it: so a test that looks
    once, at once, fails now and then on a busy machine.
    """
    deadline = time.monotonic() + within
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int) -> bool:
    """Whether a process runs now; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
