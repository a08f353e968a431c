"""What killed validations left: servers that still run, and temporary folders.

A server's working directory is a folder of its validation, so it is found by that, whenever its parent was killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

import psutil

from ..core.deadline import Deadline
from ..core.errors import LockHeld
from ..core.locks import held

HOME = "home"
"""of a validation's folder: where its servers work"""
_WAIT_S = 10.0
_POLL_S = 0.02


def remove(folder: Path) -> None:
    """End the servers that work in a validation's folder, and delete their files. Its lock must be held."""
    home = folder / HOME
    if not home.is_dir():
        return
    found = [one for one in psutil.process_iter() if one.pid != os.getpid() and _works_in(one, home.resolve())]
    for one in found:
        with contextlib.suppress(psutil.Error):
            found += one.children(recursive=True)
    for one in found:
        with contextlib.suppress(psutil.Error):
            one.kill()
    deadline = Deadline(_WAIT_S)
    while any(map(_runs, found)) and not deadline.passed:
        time.sleep(_POLL_S)
    shutil.rmtree(home, ignore_errors=True)


def remove_all(root: Path) -> None:
    """`remove` for each validation in a folder that nobody is running."""
    for home in root.glob(f"*/{HOME}"):
        with contextlib.suppress(LockHeld, OSError), locked(home.parent):
            remove(home.parent)


def locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    """The lock of a validation, or of a tuning. Raises `LockHeld`."""
    return held(
        folder.parent / f"{folder.name}.lock", f"{folder.name} is being measured", hint="wait until it has ended"
    )


def _runs(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie, which only waits for its parent, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _works_in(one: psutil.Process, folder: Path) -> bool:
    """Whether it has its working directory there: not somebody's shell, which has a terminal."""
    with contextlib.suppress(psutil.Error, OSError):
        return Path(one.cwd()).is_relative_to(folder) and one.terminal() is None
    return False
