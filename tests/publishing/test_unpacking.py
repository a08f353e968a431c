"""Only an archive that `release.pack` could have made is unpacked; any other leaves nothing."""

from __future__ import annotations

import gzip
import os
import resource
import tarfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.build.test_release import DRAFT
from tests.publishing import packs
from tests.publishing.tars import HOSTILE, members_of, published, republished, tar_of
from toolchain.build import assemble, check, release_dir
from toolchain.core.console import Console
from toolchain.core.delivery_errors import ArchiveUnsafe, CannotVerify, Tampered
from toolchain.core.errors import DiskFull
from toolchain.publishing import unpacking
from toolchain.publishing.published import PublishedRelease


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

    folder = release_dir(tmp_path, assemble(tmp_path, DRAFT, fill))
    made = published(folder, tmp_path / "x.tar.gz")
    spelled = {unicodedata.normalize("NFD", name).casefold() for name in made.files}
    if len(spelled) < len(made.files):
        with pytest.raises(ArchiveUnsafe, match="on a Mac's disk"):
            unpacking.unpack(tmp_path / "x.tar.gz", made, tmp_path / "into", Console())
        return
    assert check(unpacking.unpack(tmp_path / "x.tar.gz", made, tmp_path / "into", Console())) == check(folder)


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
        (lambda tar: tar.replace(b'"version": "0.33.0-rc2-turbo1"', b'"version": "0.34.0-rc2-turbo1"'), Tampered),
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

    folder = release_dir(tmp_path, assemble(tmp_path, DRAFT, fill))
    made = published(folder, tmp_path / "x.tar.gz")
    with no_file_above(1 << 19), pytest.raises(DiskFull):
        unpacking.unpack(tmp_path / "x.tar.gz", made, tmp_path / "into", Console())
    assert [path.name for path in (tmp_path / "into").iterdir()] == [".lock"]
    far = replace(made, archive=replace(made.archive, tar_size=1 << 60))
    with pytest.raises((DiskFull, Tampered)):
        unpacking.unpack(tmp_path / "x.tar.gz", far, tmp_path / "into", Console())
    assert check(unpacking.unpack(tmp_path / "x.tar.gz", made, tmp_path / "into", Console())).id == made.id
