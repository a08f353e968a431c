"""The archive of a release directory: the same release gives the same bytes of the tar, on every machine.

A member's name, order, mode and time depend on the manifest alone. The format is plain ustar: one header for each
member, so that no two programs can read two different names in it.
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..build import MANIFEST, modes
from ..core import records
from ..core.console import Step
from ..core.errors import ReleaseInvalid
from ..stages import Release
from .published import Archive

SUFFIX = ".tar.gz"
LINK_MODE = 0o777
MANIFEST_LIMIT = 8 << 20
"""bytes; a manifest of 10000 files has a quarter"""
_LEVEL = 6
_CHUNK = 1 << 20
_RECORD = 20 * tarfile.BLOCKSIZE
"""the size of a tar is a multiple of it"""


def manifest_bytes(release: Release) -> bytes:
    """The archive's manifest.json: without what an installation adds."""
    data = records.to_json(release).encode()
    if release.verification or release.executable is None or len(data) > MANIFEST_LIMIT:
        raise ReleaseInvalid(f"{release.id}: its manifest cannot be packed", hint="pack a release that was built")
    return data


def folders(release: Release) -> set[str]:
    """The folders of a release, relative to its directory, which is the empty name."""
    return {
        "" if str(parent) == "." else str(parent)
        for name in release.files
        for parent in PurePosixPath(name).parents
    }  # fmt: skip


def mode_of(release: Release, name: str) -> int:
    """The mode of a file of the release that is no link."""
    return modes.PROGRAM if name in (release.executable or ()) else modes.DATA


def write(folder: Path, release: Release, target: Path, step: Step) -> Archive:
    """Pack the files that the manifest lists, and the manifest, as `target`, which is replaced.

    `release` is the checked manifest of `folder`. Raises `ReleaseInvalid` when a file changes meanwhile, or when a name
    does not fit into the format; `OSError`.
    """
    total = sum((folder / name).lstat().st_size for name in release.files) / 1e6
    with target.open("wb") as raw, gzip.GzipFile("", "wb", _LEVEL, raw, mtime=_epoch(release)) as packed:
        tar, size = hashlib.sha256(), 0
        for part in _tar(folder, release):
            packed.write(part)
            tar.update(part)
            size += len(part)
            step.update(size / 1e6, total)
    with target.open("rb") as file:
        records.flush_to_disk(file.fileno())
    return Archive(
        name=target.name,
        size=target.stat().st_size,
        sha256=records.sha256_file(target),
        tar_size=size,
        tar_sha256=tar.hexdigest(),
    )


def _tar(folder: Path, release: Release) -> Iterator[bytes]:
    size = 0
    for part in _members(folder, release):
        size += len(part)
        yield part
    yield bytes(-(size + 2 * tarfile.BLOCKSIZE) % _RECORD + 2 * tarfile.BLOCKSIZE)


def _members(folder: Path, release: Release) -> Iterator[bytes]:
    """Headers and contents, in the order of the names' bytes, in which a folder is before its files."""
    inside = folders(release)
    for name in sorted((*inside, *release.files, MANIFEST), key=os.fsencode):
        full = f"{release.id}/{name}".rstrip("/")
        path = folder / name
        if name in inside:
            yield _header(full, release, kind=tarfile.DIRTYPE, mode=modes.FOLDER)
        elif name == MANIFEST:
            data = manifest_bytes(release)
            yield _header(full, release, mode=modes.DATA, size=len(data))
            yield data + bytes(-len(data) % tarfile.BLOCKSIZE)
        elif path.is_symlink():
            target = os.readlink(path)
            if records.sha256_bytes(b"symlink\0" + os.fsencode(target)) != release.files[name]:
                raise _changed(path)
            yield _header(full, release, kind=tarfile.SYMTYPE, mode=LINK_MODE, target=target)
        else:
            with _opened(path) as file:
                yield from _file(file, path, full, release, name)


def _opened(path: Path) -> BinaryIO:
    """A regular file, not what has just taken its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ReleaseInvalid(f"{path}: it cannot be read: {error.strerror}", hint="pack it again") from error
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise _changed(path)
    return file


def _file(file: BinaryIO, path: Path, full: str, release: Release, name: str) -> Iterator[bytes]:
    size = os.fstat(file.fileno()).st_size
    yield _header(full, release, mode=mode_of(release, name), size=size)
    digest, left = hashlib.sha256(), size
    while left:
        if not (part := file.read(min(left, _CHUNK))):
            raise _changed(path)
        digest.update(part)
        left -= len(part)
        yield part
    if digest.hexdigest() != release.files[name]:
        raise _changed(path)
    yield bytes(-size % tarfile.BLOCKSIZE)


def _header(
    name: str, release: Release, *, mode: int, kind: bytes = tarfile.REGTYPE, size: int = 0, target: str = ""
) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.size, member.linkname = kind, mode, size, target
    member.mtime = _epoch(release)
    try:
        return member.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError as error:
        raise ReleaseInvalid(f"{name}: it does not fit into a tar: {error}", hint="give it a shorter name") from error


def _epoch(release: Release) -> int:
    """When the release was built, in seconds."""
    try:
        created = datetime.datetime.fromisoformat(release.created)
    except ValueError:
        created = datetime.datetime.min
    if created.tzinfo is None or not 0 <= created.timestamp() < 1 << 32:
        raise ReleaseInvalid(f"{release.id}: its manifest has no time of its build: {release.created!r}")
    return int(created.timestamp())


def _changed(path: Path) -> ReleaseInvalid:
    return ReleaseInvalid(f"{path}: it was changed while it was packed", hint="pack it again when nothing writes to it")
