"""Records: there and back, and never half written."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from toolchain.core import records
from toolchain.core.errors import DiskFull, RecordError
from toolchain.stages import CacheType, Scratch


def scratch(root: Path) -> Scratch:
    return Scratch(root=root, ollama=root, llama_cpp=root, branch="b", ollama_commit="c", llama_cpp_commit="d")


def test_there_and_back(tmp_path: Path) -> None:
    records.write(tmp_path / "deep/scratch.json", scratch(tmp_path))
    assert records.read(tmp_path / "deep/scratch.json", Scratch) == scratch(tmp_path)
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep/scratch.json"]


@pytest.mark.parametrize("text", ["", "{", '{"name": "a"}', '{"name": 1, "block": 2, "bytes": 3}', "[]", "\xff"])
def test_a_damaged_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text, encoding="latin-1")
    with pytest.raises(RecordError, match=r"r\.json: not a CacheType record"):
        records.read(tmp_path / "r.json", CacheType)


def test_a_missing_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no CacheType record"):
        records.read(tmp_path / "r.json", CacheType)


def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    records.write_bytes(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(records, "flush_to_disk", full)
    with pytest.raises(DiskFull):
        records.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["directory", "pipe", "link"])
def test_what_is_no_file_is_no_record(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "r.json"
    records.write(tmp_path / "real.json", CacheType(name="a", block=1, bytes=1))
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("real.json")
    with pytest.raises(RecordError, match=r"r\.json: (not a regular file|Is a directory|a symbolic link)"):
        records.read(path, CacheType, follow=False)


def test_a_current_name_wins_over_a_former_one(tmp_path: Path) -> None:
    for both in ('"old": "o", "name": "n"', '"name": "n", "old": "o"'):
        text = f'{{{both}, "block": 1, "bytes": 1}}'
        (tmp_path / "r.json").write_text(text)
        assert records.read(tmp_path / "r.json", CacheType, former_names={"old": "name"}).name == "n"


@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        records.write_bytes(tmp_path / "a/b/file", b"")
        records.write_bytes(tmp_path / "a/b/program", b"", mode=0o755)
    finally:
        os.umask(before)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").rglob("*")}
    assert found == {"b": 0o755, "file": 0o644, "program": 0o755}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755


def test_a_sweep_takes_the_temporary_files_of_its_names_alone(tmp_path: Path) -> None:
    left = [".a.json.abcd_123", ".failed-1.log.abcdefgh"]
    others = ["a.json", ".a.json.abc", ".b.json.abcdefgh", ".a.json.ABCDEFGH"]
    for name in (*left, *others):
        (tmp_path / name).touch()
    (tmp_path / ".a.json.folder12").mkdir()
    records.sweep(tmp_path, "a.json", "failed-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, ".a.json.folder12"])
    records.sweep(tmp_path / "missing", "a.json")


_FULL_FSYNC = 51
"""F_FULLFSYNC of macOS, which Linux lacks"""


def _volume(monkeypatch: pytest.MonkeyPatch, answer: int, *, of_folders: bool = False) -> list[str]:
    """macOS as modelled here: fcntl's F_FULLFSYNC answers with an error, and fsync of folders, too, if asked for."""
    called: list[str] = []
    fsync = os.fsync

    def full(descriptor: int, command: int) -> None:
        assert command == _FULL_FSYNC
        called.append("F_FULLFSYNC")
        if answer:
            raise OSError(answer, os.strerror(answer))

    def plain(descriptor: int) -> None:
        called.append("fsync")
        if of_folders and stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(answer, os.strerror(answer))
        fsync(descriptor)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", _FULL_FSYNC, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", plain)
    return called


@pytest.mark.parametrize("answer", [errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL])
def test_a_network_volume_is_flushed_as_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    called = _volume(monkeypatch, answer, of_folders=True)
    records.write_bytes(tmp_path / "file", b"content")
    assert called == ["F_FULLFSYNC", "fsync", "fsync"]
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_drive_is_flushed_with_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = _volume(monkeypatch, 0)
    records.write_bytes(tmp_path / "file", b"content")
    assert called == ["F_FULLFSYNC", "fsync"]  # the second is the folder's


def test_a_broken_drive_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _volume(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        records.write_bytes(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_not_utf8_can_be_shown(tmp_path: Path) -> None:
    name = os.fsdecode(b"/a\xff")
    for text in (records.to_json(scratch(Path(name))), records.to_json_line({name: [name, 1, None]})):
        assert "/a\ufffd" in text
        text.encode()
    assert json.loads(records.to_json(scratch(tmp_path)))["root"] == str(tmp_path)
    assert json.loads(records.to_json_line({"lone": "\ud800"}))["lone"].startswith("\ufffd")
