"""The same release gives the same tar on every machine, and only such a tar is unpacked."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.publishing import packs
from toolchain.build import MANIFEST, assemble, check, release_dir
from toolchain.core import records
from toolchain.core.console import Console, Step
from toolchain.core.delivery_errors import ArchiveUnsafe, CannotVerify, Tampered
from toolchain.core.errors import DiskFull, ReleaseInvalid
from toolchain.publishing import archive, packing, unpacking
from toolchain.publishing.published import Archive, PublishedRelease
from toolchain.stages import Release

QUIET = Step(lambda *_: None)
PACK = """
import json, os, sys
from pathlib import Path
from toolchain.build import check
from toolchain.core.console import Step
from toolchain.core.records import to_builtins
from toolchain.publishing import archive
os.umask(int(sys.argv[3], 8))
folder = Path(sys.argv[1])
print(json.dumps(to_builtins(archive.write(folder, check(folder), Path(sys.argv[2]), Step(lambda *_: None)))))
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PublishedRelease]:
    """A packed release, which no test changes."""
    workspace = tmp_path_factory.mktemp("packed")
    folder = packs.linux(workspace)
    found = packing.pack(packs.run_in(workspace), folder, packs.verification_of(check(folder)))
    return found.folder, found.release


def moved(folder: Path, to: Path, *, backwards: bool, mtime: int) -> Path:
    """A copy of a release as another machine might have it: other times, other order in the folders."""
    for name in sorted((path.relative_to(folder) for path in folder.rglob("*")), reverse=backwards):
        source, target = folder / name, to / name
        if source.is_dir() and not source.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
        os.utime(target, (mtime, mtime), follow_symlinks=False)
    return to


def test_two_machines_pack_the_same_bytes(tmp_path: Path) -> None:
    folder = packs.linux(tmp_path / "workspace")
    tmp_path.chmod(0o755)
    results = []
    for name, umask, zone, user in (("one", "022", "UTC", 0), ("two", "077", "Asia/Tokyo", 4321)):
        place = moved(folder, tmp_path / name / "release", backwards=name == "two", mtime=1_500_000_000 + user)
        (place / ".DS_Store").write_bytes(b"Finder")
        if os.geteuid() == 0:
            for path in (place, *place.rglob("*")):
                os.chown(path, user, user, follow_symlinks=False)
        environment = {"LC_ALL": "C" if user else "C.UTF-8", "TZ": zone, "PYTHONHASHSEED": str(user), "HOME": "/"}
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{PACK}"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, place, place.parent / "x.tar.gz", umask],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results.append((json.loads(done.stdout), (place.parent / "x.tar.gz").read_bytes()))
    assert results[0] == results[1]


def test_another_tar_reads_it_alike(packed: tuple[Path, PublishedRelease], tmp_path: Path) -> None:
    folder, release = packed
    subprocess.run(["tar", "xzf", folder / release.archive.name, "-C", tmp_path], check=True)
    assert check(tmp_path / release.id).files == release.files
    with tarfile.open(folder / release.archive.name) as tar:
        members = tar.getmembers()
        assert [one.name for one in members] == sorted(one.name for one in members)
        assert {(one.uid, one.gid, one.uname, one.gname, one.mtime) for one in members} == {(0, 0, "", "", 1795706468)}
        assert {one.mode for one in members} == {0o755, 0o644, 0o777}
    raw = (folder / release.archive.name).read_bytes()
    assert release.archive.tar_sha256 == hashlib.sha256(gzip.decompress(raw)).hexdigest()
    assert release.archive.tar_size == len(gzip.decompress(raw))
    assert raw[3] == 0, "no file name and no comment in the gzip header"


def test_a_file_that_changes_meanwhile_is_not_packed(tmp_path: Path) -> None:
    folder = packs.linux(tmp_path)
    release = check(folder)
    for name, change in {
        "bin/ollama": lambda path: path.write_bytes(b"\x7fELF other"),
        "lib/ollama/libx.so.1": lambda path: (path.unlink(), path.symlink_to("empty")),
        "licenses/ollama.txt": lambda path: (path.unlink(), path.mkdir()),
    }.items():
        place = moved(folder, tmp_path / name.replace("/", "-"), backwards=False, mtime=0)
        change(place / name)  # type: ignore[no-untyped-call]
        with pytest.raises(ReleaseInvalid, match=Path(name).name):
            archive.write(place, release, tmp_path / "x.tar.gz", QUIET)


@pytest.mark.parametrize("created", ["yesterday", "2026-11-26T15:21:08", "1960-01-01T00:00:00+00:00"])
def test_a_release_without_a_time_is_not_packed(tmp_path: Path, created: str) -> None:
    folder = packs.linux(tmp_path)
    with pytest.raises(ReleaseInvalid, match="time of its build"):
        archive.write(folder, replace(check(folder), created=created), tmp_path / "x.tar.gz", QUIET)


def test_it_is_unpacked_as_it_was_packed(packed: tuple[Path, PublishedRelease], tmp_path: Path) -> None:
    folder, release = packed
    before = os.umask(0o077)
    try:
        made = unpacking.unpack(folder / release.archive.name, release, tmp_path / "into", Console())
    finally:
        os.umask(before)
    assert made == tmp_path / "into" / release.id
    assert check(made).files == release.files
    assert (made / "bin/ollama").stat().st_mode & 0o7777 == 0o755
    assert (made / "lib/ollama/libx.so.1").readlink() == Path("libx.so.1.2")
    assert sorted(path.name for path in made.parent.iterdir()) == [".lock", release.id]
    inode = (made / "bin/ollama").stat().st_ino
    unpacking.unpack(folder / release.archive.name, release, tmp_path / "into", Console())
    assert (made / "bin/ollama").stat().st_ino == inode, "what is intact stays"
    (made / "bin/ollama").write_bytes(b"damaged")
    unpacking.unpack(folder / release.archive.name, release, tmp_path / "into", Console())
    assert check(made).files == release.files
    assert sorted(path.name for path in made.parent.iterdir()) == [".lock", release.id]


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=9
)


@settings(max_examples=8, deadline=None)
@given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=2000), max_size=5))
def test_any_release_survives(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    tmp_path = tmp_path_factory.mktemp("any")

    def fill(folder: Path) -> None:
        for name, data in {**dict.fromkeys(packs.PROGRAMS, b"x"), **files}.items():
            path = folder / name
            if any(part.startswith(".") for part in name.split("/")) or any(one.is_file() for one in path.parents):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_bytes(data)
                path.chmod(0o755 if name in packs.PROGRAMS else 0o644)

    folder = release_dir(tmp_path, assemble(tmp_path, packs.DRAFT, fill))
    made = published(folder, tmp_path / "x.tar.gz")
    spelled = {unicodedata.normalize("NFD", name).casefold() for name in made.files}
    if len(spelled) < len(made.files):
        with pytest.raises(ArchiveUnsafe, match="on a Mac's disk"):
            unpacking.unpack(tmp_path / "x.tar.gz", made, tmp_path / "into", Console())
        return
    assert check(unpacking.unpack(tmp_path / "x.tar.gz", made, tmp_path / "into", Console())) == check(folder)


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


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    packed: tuple[Path, PublishedRelease], tmp_path: Path, attack: str
) -> None:
    folder, release = packed
    change, said = HOSTILE[attack]
    members = members_of(gzip.decompress((folder / release.archive.name).read_bytes()))
    change(members, release.id)
    made = republished(release, tar_of(members), tmp_path / "x.tar.gz")
    with pytest.raises(ArchiveUnsafe, match=said):
        unpacking.unpack(tmp_path / "x.tar.gz", made, tmp_path / "into", Console())
    assert [path.name for path in (tmp_path / "into").iterdir()] == [".lock"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "x.tar.gz"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tar: tar + b"\0" * 512 + b"evil", ArchiveUnsafe),
        (lambda tar: tar[: len(tar) // 2], Tampered),
        (lambda tar: tar[:512] + tar, ArchiveUnsafe),
        (lambda tar: tar.rstrip(b"\0"), Tampered),
        (lambda _tar: b"", Tampered),
        (lambda tar: tar.replace(b"\x7fELF bin/ollama", b"\x7fELF bin/evilxx"), Tampered),
        (lambda tar: tar.replace(b'"version": "0.33.0-turbo1"', b'"version": "0.34.0-turbo1"'), Tampered),
        (lambda tar: tar.replace(b"ustar\x0000", b"ustar  \x00"), ArchiveUnsafe),
        (lambda tar: tar_of(members_of(tar), tarfile.GNU_FORMAT), ArchiveUnsafe),
        (lambda tar: tar_of([(paxed(one), data) for one, data in members_of(tar)], tarfile.PAX_FORMAT), ArchiveUnsafe),
    ],
    ids=["behind", "half", "doubled", "no end", "empty", "content", "manifest", "magic", "GNU", "PAX"],
)
def test_a_malformed_tar_is_refused_and_leaves_nothing(
    packed: tuple[Path, PublishedRelease], tmp_path: Path, change: Callable[[bytes], bytes], expected: type[Exception]
) -> None:
    folder, release = packed
    tar = change(gzip.decompress((folder / release.archive.name).read_bytes()))
    made = republished(release, tar, tmp_path / "x.tar.gz")
    with pytest.raises(expected, match=r"x\.tar\.gz"):
        unpacking.unpack(tmp_path / "x.tar.gz", made, tmp_path / "into", Console())
    assert [path.name for path in (tmp_path / "into").iterdir()] == [".lock"]


def paxed(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.pax_headers = {"path": "../../evil"}
    return member


def test_a_tar_that_grows_without_end_is_read_up_to_its_published_size(
    packed: tuple[Path, PublishedRelease], tmp_path: Path
) -> None:
    folder, release = packed
    tar = gzip.decompress((folder / release.archive.name).read_bytes())
    made = republished(release, tar + bytes(50 << 20), tmp_path / "x.tar.gz")
    made = replace(made, archive=replace(made.archive, tar_size=release.archive.tar_size))
    with pytest.raises(Tampered, match="longer than"):
        unpacking.unpack(tmp_path / "x.tar.gz", made, tmp_path / "into", Console())


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "missing", "folder"])
def test_an_archive_that_is_not_what_was_published(
    packed: tuple[Path, PublishedRelease], tmp_path: Path, damage: str
) -> None:
    folder, release = packed
    data = bytearray((folder / release.archive.name).read_bytes())
    path = tmp_path / "x.tar.gz"
    if damage == "flipped":
        data[4] ^= 1  # the time in the gzip header, which changes nothing that is unpacked
    path.write_bytes(data[:-9] if damage == "cut" else data + b"x" if damage == "longer" else data)
    if damage in ("missing", "folder"):
        path.unlink()
    if damage == "folder":
        path.mkdir()
    with pytest.raises(CannotVerify if damage in ("missing", "folder") else Tampered, match=r"x\.tar\.gz"):
        unpacking.unpack(path, release, tmp_path / "into", Console())
    assert [one.name for one in (tmp_path / "into").iterdir()] == [".lock"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_gets_through_and_none_is_a_bug(
    packed: tuple[Path, PublishedRelease], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder, release = packed
    tmp_path = tmp_path_factory.mktemp("damage")
    tar = bytearray(gzip.decompress((folder / release.archive.name).read_bytes()))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(tar) - 1))
        # Half of the time in a header, where each byte means something.
        at = at - at % 512 + at % 160 if data.draw(st.booleans()) else at
        tar[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(min_size=0, max_size=2))
    made = republished(release, bytes(tar), tmp_path / "x.tar.gz")
    try:
        found = unpacking.unpack(tmp_path / "x.tar.gz", made, tmp_path / "into", Console())
        assert check(found).files == release.files
    except (ArchiveUnsafe, Tampered):
        assert [path.name for path in (tmp_path / "into").iterdir()] == [".lock"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "x.tar.gz"]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Each file that this process writes is full at this size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        for name in packs.PROGRAMS:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(os.urandom(1 << 20))
            (folder / name).chmod(0o755)

    folder = release_dir(tmp_path, assemble(tmp_path, packs.DRAFT, fill))
    made = published(folder, tmp_path / "x.tar.gz")
    with no_file_above(1 << 19), pytest.raises(DiskFull):
        unpacking.unpack(tmp_path / "x.tar.gz", made, tmp_path / "into", Console())
    assert [path.name for path in (tmp_path / "into").iterdir()] == [".lock"]
    far = replace(made, archive=replace(made.archive, tar_size=1 << 60))
    with pytest.raises((DiskFull, Tampered)):
        unpacking.unpack(tmp_path / "x.tar.gz", far, tmp_path / "into", Console())
    assert check(unpacking.unpack(tmp_path / "x.tar.gz", made, tmp_path / "into", Console())).id == made.id
