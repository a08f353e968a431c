"""Limits on what a text of others may have us compute, as a template or a pattern that never ends."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

SECONDS = 10.0
"""of this process's own time on a CPU, so that the load of the machine does not matter"""
BYTES = 512 << 20
"""beyond what the process has"""


class BoundExceeded(Exception):
    """It took more time or memory than it may."""


class _Expired(BaseException):
    """As `BoundExceeded`, which code that is ended could take for an error of its own."""


@contextmanager
def bounded() -> Iterator[None]:
    """Ends the body with `BoundExceeded` when it takes more than `SECONDS` or `BYTES`.

    The time is bounded in the main thread alone, and the memory where the system limits the address space, as Linux
    does and macOS does not.
    """
    with _memory():
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def expire(*_: Any) -> None:
            raise _Expired

        handler = signal.signal(signal.SIGVTALRM, expire)
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        except _Expired:
            raise BoundExceeded(f"takes more than {SECONDS:g} s") from None
        finally:
            signal.signal(signal.SIGVTALRM, handler)


@contextmanager
def _memory() -> Iterator[None]:
    before = soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + BYTES
    for other in (soft, hard):
        if other != resource.RLIM_INFINITY:
            limit = min(limit, other)
    with suppress(OSError, ValueError):  # macOS refuses it
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    except MemoryError as error:
        raise BoundExceeded(f"takes more than {BYTES >> 20} MiB of memory") from error
    finally:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, before)
