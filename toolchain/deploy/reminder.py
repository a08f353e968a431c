"""A second SIGTERM, for a program that waits for its clients after the first one.

llama-server stops generating on the first, and then waits until its clients hang up, who wait for tokens. On a second
it ends at once.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psutil

from ..core.errors import ToolchainError
from ..core.variables import SERVE
from ..service import units
from ..service.manager import Manager


@contextlib.contextmanager
def second_signal(manager: Manager) -> Iterator[None]:
    """While the service is stopped: remind its present process, if that is still there when its unit says so."""
    process, after_s = None, 0.0
    with contextlib.suppress(ToolchainError, psutil.Error, OSError):
        if pid := manager.inspect().pid:
            process = psutil.Process(pid)
            after_s = _after_s(process)
    if process is None or not after_s:
        yield
        return
    timer = threading.Timer(after_s, _remind, (process,))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _after_s(process: psutil.Process) -> float:
    """What the unit says whose program the process runs; 0 for any other. Raises `psutil.Error`."""
    words = [process.exe(), *process.cmdline()[:3]]  # a script is its interpreter's argument
    found = {
        name: unit for name, unit in units.UNITS.items() if any(word.endswith(f"/{unit.program[0]}") for word in words)
    }
    stated = process.environ().get(SERVE, "") if found else ""
    return max((found[name].reminded_after_s for name in found if stated in (name, "")), default=0.0)


def _remind(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):  # it has ended; a pid that was used again is told apart
        process.terminate()
