"""Records: there and back, and never half written."""

from __future__ import annotations

import errno
import os
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
