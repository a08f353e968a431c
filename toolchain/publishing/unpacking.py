"""Unpacking an archive that nobody vouches for: nothing is written before every member was judged.

tarfile's filters had holes, and programs differ in how they read a tar's extensions. So the only members are files,
folders and links that the manifest lists, each with one plain header, and the result is checked against the manifest
before it gets its name.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import posixpath
import shutil
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec

from ..build import MANIFEST, check, modes
from ..core import locks, records, temporary
from ..core.console import Console
from ..core.delivery_errors import ArchiveUnsafe, CannotVerify, Tampered
from ..core.errors import DiskFull, ReleaseInvalid
from ..stages import Release
from . import archive
from .published import PublishedRelease

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_MEMBERS = 20_000
"""a release has a few dozen"""
_PRIVATE = ".unpacking"
_LOCK_WAIT_S = 600.0
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""errors of a disk, a quota or a file that can take no more"""
_AGAIN = "fetch the archive again; if it stays, tell its publisher"


@dataclass(frozen=True)
class _Member:
    name: str
    kind: bytes
    mode: int
    size: int
    target: str


def unpack(packed: Path, release: PublishedRelease, into: Path, console: Console) -> Path:
    """Unpack the archive of a release as the folder into/ID, and return it. An intact one that is there is kept.

    `release` is trusted: its signature was verified. Raises `CannotVerify` when the archive cannot be read, `Tampered`
    when it, its manifest or a file has another digest, `ArchiveUnsafe` for a member that must not be there, `DiskFull`,
    `LockHeld`. Whatever is raised, nothing is left.
    """
    target = into / release.id
    if (found := _intact(target, release)) is not None:
        return found
    busy = f"{into}: another run is making a release"
    with _explained(into), locks.held(into / ".lock", busy, hint="wait until it ends", timeout_s=_LOCK_WAIT_S):
        if (found := _intact(target, release)) is not None:
            return found
        with console.step(f"unpack {packed.name}") as step, _opened(packed, release) as file:
            step.update(detail="looking at every member")
            members = _judged(file, release)
            needed, free = release.archive.tar_size, shutil.disk_usage(into).free
            if free < needed:
                raise DiskFull(
                    f"{into}: {release.id} needs {needed / 1e6:.0f} MB, and {free / 1e6:.0f} are free",
                    hint="free some space, then try again",
                )
            with temporary.folder(release.id, within=into / _PRIVATE) as private:
                made = private / release.id
                _write(file, members, release, private)
                _checked(made, release)
                if os.path.lexists(target):
                    target.rename(private / "damaged")
                made.rename(target)
                records.flush_directory(into)
    return target


def _intact(target: Path, release: PublishedRelease) -> Path | None:
    """The folder, if it holds exactly this release."""
    try:
        found = check(target) if target.is_dir() and not target.is_symlink() else None
    except ReleaseInvalid:
        return None
    return (
        target if found and records.sha256_bytes(records.to_json(found).encode()) == release.manifest_sha256 else None
    )


@contextmanager
def _explained(into: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(f"{into}: no space left for the release", hint="free some space, then try again") from error
        raise


@contextmanager
def _opened(packed: Path, release: PublishedRelease) -> Iterator[BinaryIO]:
    """The archive, after its digest. It stays open, so that no other file takes its place."""
    try:
        file = archive.opened(packed)
    except OSError as error:
        raise CannotVerify(f"{packed}: {error.strerror}", hint="fetch the archive again") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if size != release.archive.size:
            raise Tampered(f"{packed}: {size} bytes, and {release.archive.size} were published", hint=_AGAIN)
        if hashlib.file_digest(file, "sha256").hexdigest() != release.archive.sha256:
            raise Tampered(f"{packed}: its content is not what was published", hint=_AGAIN)
        yield file


class _Tar:
    """The tar in an archive, read once from its start, up to its published size and not a byte further."""

    def __init__(self, file: BinaryIO, release: PublishedRelease) -> None:
        file.seek(0)
        self._stream = gzip.GzipFile(fileobj=file, mode="rb")
        self._digest = hashlib.sha256()
        self._left = release.archive.tar_size
        self._expected = release.archive.tar_sha256
        self._name = release.archive.name

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        if size > self._left:
            raise Tampered(f"{self._name}: the tar in it ends too early", hint=_AGAIN)
        self._left -= size
        data = self._raw(size)
        if len(data) != size:
            raise Tampered(f"{self._name}: the tar in it is shorter than the published one", hint=_AGAIN)
        self._digest.update(data)
        return data

    def members(self) -> Iterator[_Member]:
        """One after the other. The content of each must be read, with its padding, before the next."""
        while (block := self.read(_BLOCK)) != bytes(_BLOCK):
            yield self._member(block)
        while self._left:
            if any(self.read(min(self._left, _CHUNK))):
                raise ArchiveUnsafe(f"{self._name}: data behind the end of the tar", hint=_AGAIN)
        if self._raw(1):
            raise Tampered(f"{self._name}: the tar in it is longer than the published one", hint=_AGAIN)
        if self._digest.hexdigest() != self._expected:
            raise Tampered(f"{self._name}: the tar in it is not what was published", hint=_AGAIN)

    def content(self, member: _Member) -> Iterator[bytes]:
        """The content of the member that has just been read, in parts."""
        left = member.size
        while left:
            part = self.read(min(left, _CHUNK))
            left -= len(part)
            yield part
        self.read(-member.size % _BLOCK)

    def _member(self, block: bytes) -> _Member:
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            plain = found.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict") == block
        except (tarfile.HeaderError, ValueError):
            plain = False
        if not plain:
            raise ArchiveUnsafe(f"{self._name}: a member without a plain header", hint=_AGAIN)
        return _Member(
            name=found.name, kind=found.type, mode=found.mode, size=found.size, target=found.linkname
        )  # fmt: skip

    def _raw(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Tampered(f"{self._name}: not a gzip file: {error}", hint=_AGAIN) from error


def _judged(file: BinaryIO, release: PublishedRelease) -> list[_Member]:
    """All members, none of which may do harm, and which are exactly those of the manifest."""
    tar = _Tar(file, release)
    members: dict[str, _Member] = {}
    spelled: dict[str, str] = {}
    manifest = b""
    for member in tar.members():
        why = _complaint(member, members, spelled, release.id)
        if why or len(members) >= _MEMBERS:
            raise ArchiveUnsafe(f"{release.archive.name}: {member.name!r} {why or 'is one too many'}", hint=_AGAIN)
        members[member.name] = member
        spelled[_folded(member.name)] = member.name
        if member.name == f"{release.id}/{MANIFEST}":
            if member.size > archive.MANIFEST_LIMIT:
                raise ArchiveUnsafe(f"{release.archive.name}: its manifest has {member.size} bytes", hint=_AGAIN)
            manifest = b"".join(tar.content(member))
        else:
            for _ in tar.content(member):
                pass
    stated = _manifest(manifest, release)
    if why := _difference(members, stated):
        raise ArchiveUnsafe(f"{release.archive.name}: {why}", hint=_AGAIN)
    return list(members.values())


def _complaint(member: _Member, before: dict[str, _Member], spelled: dict[str, str], top: str) -> str:
    """What is wrong with a member, whatever the manifest says; empty if nothing is."""
    name, path = member.name, PurePosixPath(member.name)
    if member.kind not in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE):
        return "is neither a file nor a folder nor a link"
    if path.is_absolute() or ".." in path.parts:
        return "leads out of the release"
    if name != str(path) or not name.isprintable() or path.parts[:1] != (top,):
        return f"is not a path in {top}"
    if name in before:
        return "is there twice"
    if other := spelled.get(_folded(name)):
        return f"is the same file as {other!r} on a Mac's disk"
    parent = str(path.parent)
    if name != top and (parent not in before or before[parent].kind != tarfile.DIRTYPE):
        return "is not in a folder of the archive"
    if member.size and member.kind != tarfile.REGTYPE:
        return "is no file, and has content"
    if member.kind == tarfile.SYMTYPE:
        landing = posixpath.normpath(posixpath.join(parent, member.target))
        if not member.target or member.target.startswith("/") or not landing.startswith(f"{top}/"):
            return f"is a link out of the release, to {member.target!r}"
    elif member.target:
        return "is no link, and has a target"
    return ""


def _folded(name: str) -> str:
    """One spelling of a name for all that a file system which ignores case takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _manifest(data: bytes, release: PublishedRelease) -> Release:
    if not data:
        raise ArchiveUnsafe(f"{release.archive.name}: it has no {MANIFEST}", hint=_AGAIN)
    if records.sha256_bytes(data) != release.manifest_sha256:
        raise Tampered(f"{release.archive.name}: its {MANIFEST} is not what was published", hint=_AGAIN)
    try:
        found = msgspec.json.decode(data, type=Release)
    except records.UNREADABLE as error:
        raise ArchiveUnsafe(f"{release.archive.name}: its {MANIFEST} is malformed: {error}") from error
    if found.id != release.id or found.files != release.files:
        raise Tampered(f"{release.archive.name}: its {MANIFEST} is that of another release", hint=_AGAIN)
    return found


def _difference(members: dict[str, _Member], release: Release) -> str:
    """In which member the archive differs from the manifest; empty if in none."""
    inside = {f"{release.id}/{name}".rstrip("/") for name in archive.folders(release)}
    files = {f"{release.id}/{name}": name for name in (*release.files, MANIFEST)}
    for name, member in members.items():
        if name not in files and name not in inside:
            return f"{name!r} is not in the manifest"
        if (name in inside) != (member.kind == tarfile.DIRTYPE):
            return f"{name!r} is a folder in only one of archive and manifest"
        mode = (
            modes.FOLDER if name in inside
            else archive.LINK_MODE if member.kind == tarfile.SYMTYPE
            else archive.mode_of(release, files[name])
        )  # fmt: skip
        if member.mode != mode:
            return f"{name!r} has mode {member.mode:o} instead of {mode:o}"
        if member.kind == tarfile.SYMTYPE and name == f"{release.id}/{MANIFEST}":
            return f"{name!r} is a link"
    missing = [name for name in (*inside, *files) if name not in members]
    return f"{sorted(missing)[0]!r} is missing" if missing else ""


def _write(file: BinaryIO, members: list[_Member], release: PublishedRelease, folder: Path) -> None:
    """Write the members that were judged, and no others, into a folder that only this user can enter."""
    tar = _Tar(file, release)
    expected = iter(members)
    for member in tar.members():
        if member != next(expected, None):
            raise Tampered(f"{release.archive.name}: it was changed while it was unpacked", hint=_AGAIN)
        path = folder / member.name
        if member.kind == tarfile.DIRTYPE:
            path.mkdir(mode=0o700)
        elif member.kind == tarfile.SYMTYPE:
            path.symlink_to(member.target)
        else:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                for part in tar.content(member):
                    out.write(part)
                out.flush()
                records.flush_to_disk(out.fileno())


def _checked(folder: Path, release: PublishedRelease) -> None:
    """Give the files their modes, and check everything against the manifest."""
    stated = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Release)
    modes.set_all(folder, stated.executable or ())
    try:
        check(folder)
    except ReleaseInvalid as error:
        raise Tampered(f"{release.archive.name}: {error.message}", hint=_AGAIN) from error
