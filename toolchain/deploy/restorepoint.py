"""What restoring the previous release takes, made before the swap.

Restoring is then a matter of renames: it needs no disk space, no readable state.json and no configuration.

    before/current      link to the release that was active
    before/environment  environment of the release to install, if that one was installed already
    before/shim         the shim
    before/state        state.json
    before/unit         the definition that the manager has loaded
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..core import records
from . import environment, installed, store
from .installed import InstallState
from .prefix import Prefix

_SPARE_DESCRIPTORS = 24
"""enough to call the service manager, a server, and to read a few files at once"""


def prepare(prefix: Prefix, release: str, previous: str) -> None:
    """Make the restore point of a deploy of `release` while `previous` is active. Replaces an older one.

    Raises `DiskFull` or `OSError`: without a restore point nothing may be swapped.
    """
    making = prefix.before.with_name(f"{prefix.before.name}.new")
    for folder in (making, prefix.before):
        if folder.exists():
            shutil.rmtree(folder)
    making.mkdir()
    making.chmod(0o700)  # whatever the umask
    for name, path in _files(prefix, release).items():
        if path.is_file():
            status = path.stat()
            records.write_bytes(making / name, path.read_bytes(), mode=status.st_mode & 0o777, group=status.st_gid)
    if previous:
        (making / "current").symlink_to(Path(prefix.releases.name) / previous)
    making.rename(prefix.before)
    records.flush_directory(prefix.folder)


def put_back(prefix: Prefix, release: str) -> tuple[str, ...]:
    """Put everything back by renames, and return what could not be. Harmless when repeated or without a restore point.

    The definition is put back under its own name alone; loading it is the manager's part.
    """
    problems = []
    link = prefix.before / "current"
    try:
        if link.is_symlink():
            os.replace(link, prefix.current)
    except OSError as error:
        problems.append(f"{prefix.current}: {error.strerror}")
    for name, path in _files(prefix, release).items():
        try:
            _replace(prefix.before / name, path)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    return tuple(problems)


def state(prefix: Prefix) -> InstallState:
    """The state before the deploy; the present one without a restore point. Raises `RecordError` or `OSError`."""
    saved = prefix.before / "state"
    return installed.read(prefix, saved if saved.is_file() else prefix.state)


def clear(prefix: Prefix) -> None:
    """Delete the restore point, as far as that is possible."""
    shutil.rmtree(prefix.before.with_name(f"{prefix.before.name}.new"), ignore_errors=True)
    shutil.rmtree(prefix.before, ignore_errors=True)


@contextlib.contextmanager
def spare_descriptors() -> Iterator[contextlib.ExitStack]:
    """Hold file descriptors; closing the stack frees them, for a restore after a leak has used up all others."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # as many as there are
            for _ in range(_SPARE_DESCRIPTORS):
                held.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield held


def _files(prefix: Prefix, release: str) -> dict[str, Path]:
    """The files of a restore point by name, with the paths that they are copies of."""
    files = {
        "environment": prefix.release(release) / environment.FILE_NAME,
        "shim": prefix.shim,
        "state": prefix.state,
    }
    with contextlib.suppress(Exception):  # without a readable state nothing is known to be loaded
        if unit := state(prefix).unit_file:
            files["unit"] = Path(unit)
    return files


def _replace(saved: Path, path: Path) -> None:
    """Rename a saved file over another, if that one differs."""
    if not saved.is_file():
        return
    data = saved.read_bytes()
    if path.is_file() and path.read_bytes() == data:
        return
    if path.is_dir() and not path.is_symlink():
        store.set_aside(path)
    try:
        os.replace(saved, path)
    except OSError:  # on another volume, or without its folder
        if path.parent.is_dir() and path.parent.stat().st_dev == saved.stat().st_dev:
            raise
        status = saved.stat()
        records.write_bytes(path, data, mode=status.st_mode & 0o777, group=status.st_gid)
