"""A bounded number of threads, each of which is given up when it is overdue.

A host may hang where no time limit reaches, as in a resolver. Its thread then must not hold up the others, nor the end
of the process: the threads are daemons, and nobody waits for an overdue one.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable


class Overdue(Exception):
    """A job that did not end within its limit."""


class Crew:
    """Jobs by name; at most `most` at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._ended: queue.Queue[tuple[str, object, BaseException | None]] = queue.Queue()
        self._running: dict[str, tuple[object, float]] = {}

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the jobs under way."""
        return tuple(self._running)

    @property
    def full(self) -> bool:
        """Whether no other job may begin."""
        return len(self._running) >= self._most

    def start(self, name: str, job: Callable[[], None], limit_s: float) -> None:
        """Begin a job, which is given up after `limit_s` seconds."""
        token = object()
        self._running[name] = token, time.monotonic() + limit_s

        def work() -> None:
            failed: BaseException | None = None
            try:
                job()
            except BaseException as error:
                failed = error
            self._ended.put((name, token, failed))

        threading.Thread(target=work, name=name, daemon=True).start()

    def ended(self, wait_s: float) -> tuple[str, BaseException | None] | None:
        """The next job that ended and what it raised, `Overdue` for one that is given up; None after `wait_s`."""
        until = time.monotonic() + wait_s
        while True:
            now = time.monotonic()
            for name, (_, limit) in self._running.items():
                if now >= limit:
                    del self._running[name]
                    return name, Overdue()
            wake = min([until, *(limit for _, limit in self._running.values())])
            try:
                name, token, failed = self._ended.get(timeout=max(0.001, wake - now))
            except queue.Empty:
                if time.monotonic() >= until:
                    return None
                continue
            if self._running.get(name, (None,))[0] is token:
                del self._running[name]
                return name, failed
