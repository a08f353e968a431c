"""WikiText-2 raw, the text that perplexities are published on: fetched once, checked, and read offline afterwards.

It is under CC BY-SA 3.0, so it is never part of the toolkit.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

from ..core import records
from ..core.delivery_errors import ForgeUnavailable, Tampered
from ..core.errors import ChecksumMismatch, FetchFailed
from ..core.records import record, sha256_bytes
from ..models.quality.samples import read_text
from ..publishing import download

WIKITEXT = "wikitext2"
"""the name of the text for --text"""
FOLDER = "texts"
"""in the workspace"""
_TIMEOUT_S = 60.0


@record
class Archive:
    """A text within a zip file on a web server. Sizes are in bytes."""

    base: str
    name: str
    size: int
    sha256: str
    member: str
    member_size: int
    member_sha256: str


WIKITEXT_2 = Archive(
    base="https://huggingface.co/datasets/ggml-org/ci/resolve/main",
    name="wikitext-2-raw-v1.zip",
    size=4_721_645,
    sha256="ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11",
    member="wikitext-2-raw/wiki.test.raw",
    member_size=1_290_590,
    member_sha256="173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08",
)


def find_text(text: str, workspace: Path, archive: Archive = WIKITEXT_2) -> Path | None:
    """The file that --text means: a path, or `WIKITEXT`, which is fetched; None for the default text.

    Raises `ConfigError` for an unreadable file, and as `fetched` does.
    """
    if not text:
        return None
    path = Path(text).expanduser().absolute()
    if text == WIKITEXT and not path.exists():
        return fetched(workspace / FOLDER, archive)
    read_text(text)
    return path


def fetched(folder: Path, archive: Archive) -> Path:
    """The archive's text in `folder`. It is fetched unless it, or the archive, was put there.

    Raises `FetchFailed` when it cannot be fetched, and `ChecksumMismatch` for another file than the pinned one.
    """
    path, packed = folder / Path(archive.member).name, folder / archive.name
    if path.is_file():
        return _checked(path, records.read_bytes(path), archive.member_sha256)
    by_hand = f"fetch {archive.base}/{archive.name} elsewhere and put it at {packed}, or its {path.name} at {path}"
    records.make_folder(folder)
    if packed.is_file():
        content = records.read_bytes(packed)
        _checked(packed, content, archive.sha256)
    else:
        try:
            content = download.read(download.source(archive.base, _TIMEOUT_S), archive.name, archive.size)
        except (FileNotFoundError, ForgeUnavailable, Tampered) as error:
            why = "the server does not have it" if isinstance(error, FileNotFoundError) else error.message
            raise FetchFailed(f"{archive.name} cannot be fetched: {why}", hint=by_hand) from error
        if sha256_bytes(content) != archive.sha256:
            raise ChecksumMismatch(
                f"{archive.base}/{archive.name} has {len(content)} bytes of another content than the pinned one",
                hint=by_hand,
            )
    text = _member(content, archive)
    if text is None or sha256_bytes(text) != archive.member_sha256:
        raise ChecksumMismatch(f"{archive.name} holds no {archive.member} with the pinned content", hint=by_hand)
    records.write_bytes(path, text)
    return path


def _member(content: bytes, archive: Archive) -> bytes | None:
    """The one file that is wanted, in memory and never beyond its size: no name in the archive becomes a path."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as opened, opened.open(archive.member) as member:
            return member.read(archive.member_size + 1)
    except (zipfile.BadZipFile, zlib.error, KeyError, OSError, NotImplementedError, RuntimeError):
        return None


def _checked(path: Path, content: bytes, sha256: str) -> Path:
    if sha256_bytes(content) != sha256:
        raise ChecksumMismatch(f"{path}: is not the pinned file", hint="delete it, and it is fetched again")
    return path
