"""WikiText-2, from a server of this machine: the archive there is a small one, with its own checksums."""

from __future__ import annotations

import dataclasses
import functools
import io
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.answering import answering
from toolchain.core.errors import ChecksumMismatch, ConfigError, FetchFailed
from toolchain.core.records import sha256_bytes
from toolchain.validation.texts import WIKITEXT, Archive, find_text

TEXT = b"= Rivers =\n\nA river is a stream of water .\n" * 40


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL that serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    with answering(ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))) as port:
        yield folder, f"http://127.0.0.1:{port}"


def _archive(folder: Path, base: str, members: dict[str, bytes]) -> Archive:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    content = packed.getvalue()
    (folder / "text.zip").write_bytes(content)
    return Archive(
        base=base,
        name="text.zip",
        size=len(content),
        sha256=sha256_bytes(content),
        member="raw/text.raw",
        member_size=len(TEXT),
        member_sha256=sha256_bytes(TEXT),
    )


def test_the_text_is_fetched_once(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    archive = _archive(folder, url, {"../evil": b"x", "raw/text.raw": TEXT, "raw/other.raw": b"y"})
    found = find_text(WIKITEXT, tmp_path / "ws", archive)
    assert found is not None
    assert found.read_bytes() == TEXT
    assert [path.name for path in (tmp_path / "ws").rglob("*") if path.is_file()] == ["text.raw"]
    (folder / "text.zip").unlink()  # as if offline
    assert find_text(WIKITEXT, tmp_path / "ws", archive) == found
    found.write_bytes(TEXT[:-1])
    with pytest.raises(ChecksumMismatch, match=r"text\.raw: is not the pinned file"):
        find_text(WIKITEXT, tmp_path / "ws", archive)


def test_an_archive_that_was_put_there_is_taken(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = served
    archive = _archive(folder, "http://127.0.0.1:9", {"raw/text.raw": TEXT})
    with pytest.raises(FetchFailed, match=r"text\.zip cannot be fetched") as caught:
        find_text(WIKITEXT, tmp_path, archive)
    where = tmp_path / "texts" / "text.zip"
    assert f"put it at {where}" in caught.value.hint
    where.write_bytes((folder / "text.zip").read_bytes())
    found = find_text(WIKITEXT, tmp_path, archive)
    assert found is not None
    assert found.read_bytes() == TEXT


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"sha256": "0" * 64}, ChecksumMismatch, "another content than the pinned one"),
        ({"name": "none.zip"}, FetchFailed, "the server does not have it"),
        ({"size": 10}, FetchFailed, "more than 10 bytes"),
        ({"member": "raw/none.raw"}, ChecksumMismatch, r"holds no raw/none\.raw"),
        ({"member_size": 99}, ChecksumMismatch, r"holds no raw/text\.raw"),
    ],
)
def test_another_archive_is_refused(
    served: tuple[Path, str], tmp_path: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    folder, url = served
    archive = dataclasses.replace(_archive(folder, url, {"raw/text.raw": TEXT}), **change)
    with pytest.raises(error, match=words):
        find_text(WIKITEXT, tmp_path / "ws", archive)
    assert not [path for path in (tmp_path / "ws").rglob("*") if path.is_file()]


def test_a_file_is_itself(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("words")
    assert find_text(str(tmp_path / "text"), tmp_path) == tmp_path / "text"
    assert find_text("", tmp_path) is None
    with pytest.raises(ConfigError, match="cannot be read"):
        find_text(str(tmp_path / "none"), tmp_path)
