"""The release directories of a prefix: copied, made current, deleted. Each appears and disappears by a rename."""

from __future__ import annotations

import datetime
import errno
import os
import shutil
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..build import modes
from ..build import release as built
from ..core import records
from ..core.console import Step
from ..core.errors import DiskFull, ReleaseInvalid
from ..proofs import Verification
from ..service.account import Account
from ..stages import Release
from . import environment, proof
from .prefix import DISCARDED, TEMPORARY, Prefix

_DAMAGED = ".damaged-"
_SLACK = 1.05
"""factor on the release's size for the required free space, because file systems round up"""


def copy_in(source: Path, release: Release, proven: Verification | None, prefix: Prefix, step: Step) -> None:
    """Copy a release directory into the prefix with its proof, check the copy against its manifest, and name it.

    An existing directory of that id is replaced. Raises `DiskFull` or `ReleaseInvalid`, and then leaves nothing of the
    copy.
    """
    target = prefix.release(release.id)
    private = prefix.releases / (TEMPORARY + release.id)
    temporary = private / release.id
    delete(private)
    records.make_folder(prefix.releases)
    total = sum((source / name).lstat().st_size for name in release.files)
    if shutil.disk_usage(prefix.releases).free < total * _SLACK:
        raise DiskFull(
            f"{prefix.releases}: release {release.id} needs {total / 1e6:.0f} MB of free space",
            hint="free some space, or set deploy.keep lower and run ./inv deploy.prune",
        )
    try:
        # Until it is known to be the release, for root may have been led to files that others must not see.
        private.mkdir(mode=0o700)
        private.chmod(0o700)
        done = 0
        for name in release.files:
            copy_file(source / name, temporary / name)
            done += (source / name).lstat().st_size
            step.update(done / 1e6, total / 1e6, name)
        proof.write(temporary, release, proven)
        built.check(temporary)
        if (before := environment_text(release.id, prefix)) is not None:
            status = (target / environment.FILE_NAME).stat()
            path, mode = temporary / environment.FILE_NAME, status.st_mode & 0o777
            records.write_bytes(path, before.encode(), mode=mode, group=status.st_gid)
        doomed = prefix.releases / (DISCARDED + release.id)
        if os.path.lexists(target):
            target.rename(doomed)
        temporary.rename(target)
        records.flush_directory(prefix.releases)
        delete(doomed)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"{temporary}: the disk is full", hint="free some space; the service is unchanged"
            ) from error
        raise
    finally:
        shutil.rmtree(private, ignore_errors=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy content and times of a file, or a link as a link; attributes such as quarantine stay behind."""
    records.make_folder(target.parent)
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    # Not through a link that has just taken its place, and not waiting for a pipe.
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ReleaseInvalid(f"{source}: it became a link meanwhile", hint="copy the release elsewhere") from error
    with os.fdopen(descriptor, "rb") as file, target.open("xb") as copy:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ReleaseInvalid(f"{source}: not a file or a link", hint="build it again")
        shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        os.fchmod(copy.fileno(), modes.DATA)  # at once, whatever the umask is
        os.utime(copy.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        records.flush_to_disk(copy.fileno())


def holds(release: Release, prefix: Prefix) -> bool:
    """Whether the prefix has exactly this release, undamaged."""
    try:
        found = built.check(prefix.release(release.id)) if prefix.has(release.id) else None
    except ReleaseInvalid:
        return False
    return found is not None and _content(found) == _content(release)


def _content(release: Release) -> Release:
    """A manifest without what an earlier version left out."""
    return replace(release, verification="", executable=None)


def checked(identifier: str, prefix: Prefix) -> Release:
    """The manifest of an installed release that is whole, so that it may run again. Raises `ReleaseInvalid`."""
    folder = prefix.release(identifier)
    if not prefix.has(identifier):
        raise ReleaseInvalid(f"{folder}: there is no such release", hint="./inv deploy.status lists the releases")
    with suppress(PermissionError):
        if built.load(folder).executable is None:  # an earlier version kept the modes of its source
            modes.set_all(folder, modes.presumed_executable(folder))
    found = built.check(folder)
    if found.id != identifier:
        raise ReleaseInvalid(f"{folder}: it holds release {found.id}", hint="install the release again")
    if wrong := environment.doubt(environment_text(identifier, prefix) or ""):
        raise ReleaseInvalid(f"{folder / environment.FILE_NAME}: {wrong}", hint="install the release again")
    return found


def write_environment(identifier: str, text: str, prefix: Prefix, reader: Account | None) -> None:
    """Set the environment file of an installed release, atomically. See `show_environment`."""
    mode, group = _readable_by(reader)
    records.write_bytes(prefix.release(identifier) / environment.FILE_NAME, text.encode(), mode=mode, group=group)


def show_environment(identifier: str, prefix: Prefix, reader: Account | None) -> None:
    """Let its owner alone read a release's environment, which may hold a key, and the main group of a daemon's user."""
    path = prefix.release(identifier) / environment.FILE_NAME
    mode, group = _readable_by(reader)
    if path.is_file() and not path.is_symlink():
        if group >= 0:
            os.chown(path, -1, group)
        path.chmod(mode)


def _readable_by(reader: Account | None) -> tuple[int, int]:
    """Mode and group of an environment file; no group where the service's user owns it."""
    return (0o640, reader.gid) if os.geteuid() == 0 and reader and reader.uid != 0 else (0o600, -1)


def environment_text(identifier: str, prefix: Prefix) -> str | None:
    """The environment file of an installed release; None if there is none."""
    path = prefix.release(identifier) / environment.FILE_NAME
    if not path.is_file() or not prefix.has(identifier):
        return None
    return path.read_bytes().decode(errors="replace")  # as it stands, with every line break


def swap(identifier: str, prefix: Prefix) -> None:
    """Point `current` to a release by one rename, so that it is always the old one or the new one.

    Raises `ReleaseInvalid` when releases/ has no directory of that id.
    """
    if not prefix.has(identifier):
        raise ReleaseInvalid(f"{prefix.release(identifier)}: there is no such release", hint="install it again")
    temporary = prefix.folder / f"{prefix.current.name}.new"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path(prefix.releases.name) / identifier)
    os.replace(temporary, prefix.current)
    records.flush_directory(prefix.folder)


def sweep(keep: set[str], prefix: Prefix) -> None:
    """Delete everything in releases/ that is not in `keep`: leftovers of an interrupted deploy, and Finder's files.

    A release to keep is restored first if its replacement was interrupted between the two renames.
    """
    (prefix.folder / f"{prefix.current.name}.new").unlink(missing_ok=True)
    if not prefix.releases.is_dir():
        return
    for entry in sorted(prefix.releases.iterdir()):
        original = entry.name.removeprefix(DISCARDED)
        if original != entry.name and original in keep and not prefix.release(original).exists():
            entry.rename(prefix.release(original))
        elif entry.name not in keep:
            delete(entry)


def delete(path: Path) -> None:
    """Delete a folder, a file or a link, never what a link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged file, link or folder, so that a person can look at it; returns its new path."""
    now = stamp()
    names = (path.with_name(f"{path.name}{_DAMAGED}{now}{end}") for end in ("", *(f"-{n}" for n in range(2, 1000))))
    aside = next(name for name in names if not os.path.lexists(name))
    path.rename(aside)
    return aside


def stamp() -> str:
    """Now, for a file's name."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}"


def forget(prefix: Prefix) -> None:
    """Delete what was set aside."""
    for path in prefix.folder.glob(f"*{_DAMAGED}*"):
        delete(path)
