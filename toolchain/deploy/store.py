"""The release directories of a prefix: copied, made current, deleted. Each appears and disappears by a rename."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

from ..build import release as built
from ..core import records
from ..core.console import Step
from ..core.errors import DiskFull, ReleaseInvalid
from ..stages import Release, Verification
from . import environment, proof
from .prefix import DISCARDED, TEMPORARY, Prefix

_SLACK = 1.05
"""factor on the release's size for the required free space, because file systems round up"""


def copy_in(source: Path, release: Release, proven: Verification | None, prefix: Prefix, step: Step) -> None:
    """Copy a release directory into the prefix with its proof, check the copy against its manifest, and name it.

    An existing directory of that id is replaced. Raises `DiskFull` or `ReleaseInvalid`, and then leaves nothing of the
    copy.
    """
    target = prefix.release(release.id)
    temporary = prefix.releases / (TEMPORARY + release.id)
    shutil.rmtree(temporary, ignore_errors=True)
    prefix.releases.mkdir(parents=True, exist_ok=True)
    total = sum((source / name).lstat().st_size for name in release.files)
    if shutil.disk_usage(prefix.releases).free < total * _SLACK:
        raise DiskFull(
            f"{prefix.releases}: release {release.id} needs {total / 1e6:.0f} MB of free space",
            hint="free some space, or set deploy.keep lower and run ./inv deploy.prune",
        )
    try:
        done = 0
        for name in release.files:
            _copy_file(source / name, temporary / name)
            done += (source / name).lstat().st_size
            step.update(done / 1e6, total / 1e6, name)
        proof.write(temporary, release, proven)
        built.check(temporary)
        if (before := environment_text(release.id, prefix)) is not None:
            (temporary / environment.FILE_NAME).write_text(before, encoding="utf-8")
        doomed = prefix.releases / (DISCARDED + release.id)
        if target.exists():
            target.rename(doomed)
        temporary.rename(target)
        records.flush_directory(prefix.releases)
        shutil.rmtree(doomed, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"{temporary}: the disk is full", hint="free some space; the service is unchanged"
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    shutil.copy2(source, target)
    with target.open("rb") as file:
        records.flush_to_disk(file.fileno())


def holds(release: Release, prefix: Prefix) -> bool:
    """Whether the prefix has exactly this release, undamaged."""
    folder = prefix.release(release.id)
    try:
        return folder.is_dir() and replace(built.check(folder), verification="") == release
    except ReleaseInvalid:
        return False


def write_environment(identifier: str, text: str, prefix: Prefix) -> None:
    """Set the environment file of an installed release, atomically."""
    records.write_bytes(prefix.release(identifier) / environment.FILE_NAME, text.encode())


def environment_text(identifier: str, prefix: Prefix) -> str | None:
    """The environment file of an installed release; None if there is none."""
    path = prefix.release(identifier) / environment.FILE_NAME
    return path.read_bytes().decode(errors="replace") if path.is_file() else None


def swap(identifier: str, prefix: Prefix) -> None:
    """Point `current` to a release by one rename, so that it is always the old one or the new one."""
    temporary = prefix.folder / f"{prefix.current.name}.new"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path(prefix.releases.name) / identifier)
    os.replace(temporary, prefix.current)
    records.flush_directory(prefix.folder)


def sweep(keep: set[str], prefix: Prefix) -> None:
    """Delete everything in releases/ that is not in `keep`: leftovers of an interrupted deploy.

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
            shutil.rmtree(entry, ignore_errors=True)
