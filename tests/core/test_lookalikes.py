"""What servers and checkouts give in place of a file is called by its name, wherever files come from."""

from __future__ import annotations

import http.server
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.answering import answering
from tests.memory import models
from toolchain.core import lookalikes
from toolchain.core.console import Console
from toolchain.core.delivery_errors import ForgeUnavailable
from toolchain.core.download import download
from toolchain.core.errors import FetchFailed, ModelInvalid
from toolchain.models.memory import gguf
from toolchain.publishing import download as publication

PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html lang=en><body>a model</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 4683073536\n"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A site of models: files with ranges, pages that show them below /blob/, and what asks for a login."""
    tensors = models.dense().tensors
    files = {"pointer.gguf": POINTER, "typed.gguf": PAGE}
    for number in (0, 1):
        spec = models.Spec("llama", models.dense().metadata, [tensors[number]])
        extra = {"split.count": 2, "split.no": number, "split.tensors.count": 2}
        path = models.write(tmp_path / "part.gguf", spec, data=False, extra=extra)
        files[f"m-0000{number + 1}-of-00002.gguf"] = path.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            page = "/blob/" in path
            body = PAGE if page else files.get(path.rpartition("/")[2], b"")
            if not body:
                self.send_error(403)
                return
            wanted = self.headers.get("Range", "")
            if wanted and not page:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                whole, body = len(body), body[int(first) : int(last) + 1 if last else None]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{int(first) + len(body) - 1}/{whole}")
            else:
                self.send_response(200)
            self.send_header("Content-Type", "text/HTML; charset=utf-8" if page else "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    with answering(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}/me/model"


def test_a_url_with_a_query_names_all_parts(site: str) -> None:
    place = f"{site}/resolve/main/m-00001-of-00002.gguf?download=true"
    found = gguf.load(place)
    assert found.parts == (place, place.replace("00001-of", "00002-of"))
    assert len(found.tensors) == 2


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("blob/main/m.gguf?a=b", "the server sends a web page instead of a file", "/me/model/resolve/main/m.gguf?a=b"),
        ("resolve/main/pointer.gguf", "a pointer of Git LFS, not a GGUF file", "git lfs pull"),
        ("resolve/main/typed.gguf", "a web page, not a GGUF file", "login"),
        ("resolve/main/gated.gguf", "the server answers 403", "with your account"),
    ],
)
def test_a_model_by_a_url(site: str, path: str, message: str, hint: str) -> None:
    with pytest.raises(ModelInvalid, match=message) as caught:
        gguf.load(f"{site}/{path}")
    assert hint in caught.value.hint


@pytest.mark.parametrize(("data", "called"), [(PAGE, "a web page"), (POINTER, "a pointer of Git LFS")])
def test_files_that_hold_something_else(tmp_path: Path, data: bytes, called: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelInvalid, match=f"{called}, not a GGUF file"):
        gguf.load(str(path))
    source = publication.source(str(tmp_path), 5)
    with pytest.raises(ForgeUnavailable, match=f"{called} instead of the file"):
        publication.read(source, "m.gguf", 1 << 20)
    with pytest.raises(ForgeUnavailable, match=called):
        publication.save(source, "m.gguf", 1 << 20, io.BytesIO())
    path.write_bytes(b"")
    assert publication.read(source, "m.gguf", 1 << 20) == b""


@pytest.mark.parametrize("path", ["blob/main/w.whl", "resolve/main/pointer.gguf", "resolve/main/typed.gguf"])
def test_nothing_of_a_page_is_kept_of_a_download(site: str, tmp_path: Path, path: str) -> None:
    with Console().step("fetch") as step, pytest.raises(FetchFailed, match="instead of the file"):
        download(f"{site}/{path}", tmp_path / "w", size=100_000, sha256="0" * 64, step=step)
    assert (tmp_path / "w.part").read_bytes() == b""


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("https://huggingface.co/a/b/blob/main/m.gguf", "https://huggingface.co/a/b/resolve/main/m.gguf"),
        ("https://github.com/a/b/blob/v1/x.bin#L3", "https://github.com/a/b/raw/v1/x.bin"),
        ("https://huggingface.co/a/b/resolve/main/m.gguf", ""),
        ("/home/me/blob/m.gguf", ""),
    ],
)
def test_the_url_of_the_file_itself(url: str, direct: str) -> None:
    assert lookalikes.direct_url(url) == direct


@pytest.mark.parametrize("beginning", [b"", b"GGUF", b"<htmlx>", b'{"html": 1}', b"PK\3\4<html>", b"version 1"])
def test_other_files_are_none(beginning: bytes) -> None:
    assert lookalikes.what(beginning) == ""
