"""Temporary folders that the next run deletes when their own run was killed.

Each lies in a folder of ours, locked as long as its process lives. A folder that can be locked has no owner any more.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .records import make_folder


def home() -> Path:
    """The folder for temporary folders of this user: turboquant-UID in the system's place for them."""
    return Path(tempfile.gettempdir()) / f"turboquant-{os.geteuid()}"


@contextmanager
def folder(purpose: str, within: Path | None = None) -> Iterator[Path]:
    """A new folder in `within` (default: `home()`), deleted at the end. Deletes what killed runs left there.

    Only this user can read it. Raises `OSError`, also when `within` is a link or others can write to it.
    """
    made, descriptor = _make(within, purpose) if within else _make_at_home(purpose)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(descriptor)
        if made.parent == (within or home()):
            with suppress(OSError):  # others are in it
                made.parent.rmdir()


def sweep(within: Path) -> None:
    """Delete the folders in `within` whose process has ended, and `within` if it is then empty."""
    with suppress(OSError), _locked(within):
        _sweep(within)
        within.rmdir()


def _make_at_home(purpose: str) -> tuple[Path, int]:
    try:
        if home().exists() and home().stat().st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user", str(home()))
        return _make(home(), purpose)
    except OSError:  # anyone can make a folder of that name: then without it
        made = Path(tempfile.mkdtemp(prefix=f"turboquant-{purpose}-"))
        return made, _open(made)


def _make(within: Path, purpose: str) -> tuple[Path, int]:
    """A new folder, and the descriptor that locks it."""
    while True:
        make_folder(within)
        with suppress(FileNotFoundError), _locked(within):  # another run may delete it before we lock it
            _sweep(within)
            made = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=within))
            made.chmod(0o700)  # whatever the umask
            descriptor = _open(made)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return made, descriptor


@contextmanager
def _locked(within: Path) -> Iterator[None]:
    """Hold the lock of the folder of temporary folders, so that no new one is taken for a dead one."""
    descriptor = _open(within)
    try:
        found = os.fstat(descriptor)
        if stat.S_IMODE(found.st_mode) & 0o022:
            raise PermissionError(errno.EPERM, "others can write to it", str(within))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if within.stat().st_ino != found.st_ino:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(within))
        yield
    finally:
        os.close(descriptor)


def _sweep(within: Path) -> None:
    for entry in within.iterdir():
        try:
            descriptor = _open(entry)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry, ignore_errors=True)
        except BlockingIOError:
            pass  # its run is alive
        finally:
            os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
