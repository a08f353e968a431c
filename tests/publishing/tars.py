"""Archives that are not what `release.pack` makes: the tools, and a list of hostile ones."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from toolchain.build import MANIFEST, check
from toolchain.core import records
from toolchain.core.console import Step
from toolchain.publishing import archive
from toolchain.publishing.published import Archive, PublishedRelease
from toolchain.stages import Release

QUIET = Step(lambda *_: None)


def published(folder: Path, target: Path) -> PublishedRelease:
    """A release packed as `target`, and what is published of it."""
    release = check(folder)
    return stated(release, archive.write(folder, release, target, QUIET))


def stated(release: Release, made: Archive) -> PublishedRelease:
    return PublishedRelease(
        id=release.id, sequence=1, version=release.version, platform=release.platform, created=release.created,
        ollama_commit=release.ollama_commit, llama_cpp_commit=release.llama_cpp_commit, llama_cpp_build=1,
        series_sha256=release.series_sha256, signing="none", archive=made, files=release.files,
        manifest_sha256=records.sha256_bytes(archive.manifest_bytes(release)), unsigned={}, documents={},
    )  # fmt: skip


def republished(release: PublishedRelease, tar: bytes, path: Path) -> PublishedRelease:
    """Other content in the archive, with digests that fit, as if its publisher had made it so."""
    data = gzip.compress(tar, 1, mtime=0)
    path.write_bytes(data)
    made = Archive(
        name=path.name, size=len(data), sha256=records.sha256_bytes(data),
        tar_size=len(tar), tar_sha256=records.sha256_bytes(tar),
    )  # fmt: skip
    return replace(release, archive=made)


Members = list[tuple[tarfile.TarInfo, bytes]]


def members_of(tar: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        opened = ((one, found.extractfile(one) if one.isreg() else None) for one in found.getmembers())
        return [(one, file.read() if file else b"") for one, file in opened]


def tar_of(members: Members, form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for one, data in members:
            tar.addfile(one, io.BytesIO(data))
    return out.getvalue()


def added(name: str, data: bytes = b"", at: int = 99, **fields: object) -> Callable[[Members, str], None]:
    """Add a member; TOP in names stands for the release's id."""

    def change(members: Members, top: str) -> None:
        member = tarfile.TarInfo(name.replace("TOP", top))
        member.mode, member.size = 0o644, len(data)
        for key, value in fields.items():
            setattr(member, key, value.replace("TOP", top) if isinstance(value, str) else value)
        members.insert(at, (member, data))

    return change


def changed(name: str, **fields: object) -> Callable[[Members, str], None]:
    def change(members: Members, top: str) -> None:
        for member, _ in members:
            if member.name == f"{top}/{name}":
                for key, value in fields.items():
                    setattr(member, key, value)

    return change


def dropped(name: str) -> Callable[[Members, str], None]:
    def change(members: Members, top: str) -> None:
        members[:] = [one for one in members if one[0].name != f"{top}/{name}"]

    return change


LINK, HARD, FOLDER = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
HOSTILE: dict[str, tuple[Callable[[Members, str], None], str]] = {
    "absolute": (added("/tmp/evil", b"x"), "leads out"),
    "parent": (added("TOP/../evil", b"x"), "leads out"),
    "parent in the middle": (added("TOP/bin/../../../evil", b"x"), "leads out"),
    "beside": (added("evil", b"x"), "not a path in"),
    "another top": (added("TOPx/evil", b"x"), "not a path in"),
    "dot": (added("TOP/./bin/x", b"x"), "not a path in"),
    "double slash": (added("TOP//bin/x", b"x"), "not a path in"),
    "newline": (added("TOP/bin/a\nb", b"x"), "not a path in"),
    "escape": (added("TOP/bin/a\x1b[2J", b"x"), "not a path in"),
    "unlisted file": (added("TOP/bin/evil", b"x"), "not in the manifest"),
    "unlisted folder": (added("TOP/evil", type=FOLDER, mode=0o755), "not in the manifest"),
    "environment": (added("TOP/environment", b"DYLD_INSERT_LIBRARIES=/tmp/x"), "not in the manifest"),
    "hard link": (added("TOP/bin/evil", type=HARD, linkname="TOP/bin/ollama"), "neither a file"),
    "hard link out": (added("TOP/bin/evil", type=HARD, linkname="/etc/passwd"), "neither a file"),
    "character device": (added("TOP/bin/evil", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "neither a file"),
    "block device": (added("TOP/bin/evil", type=tarfile.BLKTYPE), "neither a file"),
    "pipe": (added("TOP/bin/evil", type=tarfile.FIFOTYPE), "neither a file"),
    "contiguous": (added("TOP/bin/evil", type=tarfile.CONTTYPE), "neither a file"),
    "unknown type": (added("TOP/bin/evil", type=b"Q"), "neither a file"),
    "link to a root": (added("TOP/bin/evil", type=LINK, linkname="/etc"), "a link out"),
    "link up": (added("TOP/bin/evil", type=LINK, linkname="../../x"), "a link out"),
    "link to the release's folder": (added("TOP/bin/evil", type=LINK, linkname=".."), "a link out"),
    "link without a target": (added("TOP/bin/evil", type=LINK), "a link out"),
    "unlisted link": (added("TOP/bin/evil", type=LINK, linkname="ollama"), "not in the manifest"),
    "file through a link": (added("TOP/lib/ollama/libx.so.1/evil", b"x"), "not in a folder"),
    "file in a file": (added("TOP/bin/ollama/evil", b"x"), "not in a folder"),
    "file before its folder": (added("TOP/lib/new/evil", b"x"), "not in a folder"),
    "twice": (added("TOP/bin/ollama", b"x"), "there twice"),
    "twice as a link": (added("TOP/bin/ollama", type=LINK, linkname="x"), "there twice"),
    "other case": (added("TOP/bin/OLLAMA", b"x"), "on a Mac's disk"),
    "other case of a folder": (added("TOP/BIN", type=FOLDER, mode=0o755), "on a Mac's disk"),
    "other case, not ASCII": (added("TOP/licen\u017fes", b"x"), "on a Mac's disk"),
    "folder with content": (added("TOP/bin/evil", b"x", type=FOLDER), "has content"),
    "file with a target": (added("TOP/bin/evil", b"x", linkname="/etc/passwd"), "has a target"),
    "setuid": (changed("bin/ollama", mode=0o4755), "has mode 4755"),
    "writable": (changed("bin/ollama", mode=0o777), "has mode 777"),
    "program that is none": (changed("bin/ollama", mode=0o644), "has mode 644"),
    "folder of others": (changed("bin", mode=0o777), "has mode 777"),
    "folder as a link": (changed("lib", type=LINK, linkname="bin"), "not in a folder"),
    "file as a folder": (changed("licenses/ollama.txt", type=FOLDER, size=0, mode=0o755), "a folder in only one"),
    "manifest as a link": (changed(MANIFEST, type=LINK, linkname="bin/ollama", size=0, mode=0o777), "no manifest"),
    "without a manifest": (dropped(MANIFEST), "no manifest"),
    "without a file": (dropped("bin/ollama"), "is missing"),
    "nothing": (lambda members, _top: members.clear(), "no manifest"),
}  # fmt: skip
