"""Reads parts of a model file, from the disk or by HTTP range requests."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import requests
import urllib3

from ...core import lookalikes
from ...core.errors import ModelInvalid

_TIMEOUT_S = 30.0
_REQUEST_S = 120.0
"""total time for one request: a server that sends a byte now and then would never time out"""
_MAX_REDIRECTS = 5
_WRONG = "is the URL right?"
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class ModelOrigin(Protocol):
    """A file that is read in pieces. `name` is for messages, `size` is in bytes."""

    name: str
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes at `offset`, which must be inside the file. Raises `ModelInvalid`."""


class FileSource:
    """A file on the disk."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        try:
            if not path.is_file():
                raise ModelInvalid(
                    f"{path}: no such file", hint="--model takes a GGUF file, a URL or a name from `ollama list`"
                )
            self.size = path.stat().st_size
        except OSError as error:
            raise ModelInvalid(f"{path}: cannot be read: {error.strerror}") from error
        self._path = path

    def read(self, offset: int, length: int) -> bytes:
        """As `ModelOrigin.read`."""
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            raise ModelInvalid(f"{self.name}: cannot be read: {error.strerror}") from error
        if len(data) != length:
            raise ModelInvalid(f"{self.name}: at byte {offset}: the file was truncated while it was read")
        return data


class HttpSource:
    """A file behind a server that answers range requests (status 206)."""

    def __init__(self, url: str) -> None:
        self.name = url
        if urlsplit(url).scheme not in ("http", "https"):
            raise ModelInvalid(f"{url}: not a file or an http(s) URL")
        self.size = 0
        self.read(0, 1)

    def read(self, offset: int, length: int) -> bytes:
        """As `ModelOrigin.read`; one request. A server that sends more than requested is an error."""
        last = offset + length - 1
        try:
            with requests.Session() as session:
                session.max_redirects = _MAX_REDIRECTS
                headers = {"Range": f"bytes={offset}-{last}", "Accept-Encoding": "identity"}
                with session.get(self.name, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
                    self._check(answer, offset, last)
                    return self._body(answer, offset, length)
        except requests.RequestException as error:
            raise ModelInvalid(f"{self.name}: no answer: {error}", hint="download the file, or try later") from error

    def _check(self, answer: requests.Response, offset: int, last: int) -> None:
        if lookalikes.is_page(answer.headers.get("Content-Type", "")) and answer.ok:
            raise ModelInvalid(
                f"{self.name}: the server sends {lookalikes.PAGE} instead of a file",
                hint=lookalikes.remedy(lookalikes.PAGE, self.name),
            )
        if answer.status_code == requests.codes.ok:
            raise ModelInvalid(
                f"{self.name}: the server ignores range requests and would send the whole file",
                hint="download the file and name it instead",
            )
        if answer.status_code != requests.codes.partial_content:
            closed = answer.status_code in (requests.codes.unauthorized, requests.codes.forbidden)
            raise ModelInvalid(
                f"{self.name}: the server answers {answer.status_code} {answer.reason}",
                hint="it asks for a login: download the file with your account, and name it" if closed else _WRONG,
            )
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if not match or (int(match[1]), int(match[2])) != (offset, last):
            raise ModelInvalid(f"{self.name}: requested bytes {offset} to {last}, but the server sends others")
        if self.size not in (0, int(match[3])):
            raise ModelInvalid(f"{self.name}: the file changed while it was read")
        self.size = int(match[3])

    def _body(self, answer: requests.Response, offset: int, length: int) -> bytes:
        data, piece = b"", b"x"
        deadline = time.monotonic() + _REQUEST_S
        try:
            while piece and len(data) <= length:
                piece = answer.raw.read1(length + 1 - len(data))  # available bytes, without waiting for more
                data += piece
                if time.monotonic() > deadline:
                    raise ModelInvalid(f"{self.name}: at byte {offset}: not read after {_REQUEST_S:g} s")
        except urllib3.exceptions.HTTPError as error:
            raise ModelInvalid(f"{self.name}: at byte {offset}: {error}", hint="try again later") from error
        if len(data) != length:
            raise ModelInvalid(f"{self.name}: at byte {offset}: expected {length} bytes, received {len(data)}")
        return data


def no_gguf(source: ModelOrigin) -> ModelInvalid:
    """The error for a file that does not begin as a GGUF file does, with what it is instead, if that is known."""
    if found := lookalikes.what(source.read(0, min(source.size, lookalikes.ENOUGH))):
        return ModelInvalid(f"{source.name}: {found}, not a GGUF file", hint=lookalikes.remedy(found, source.name))
    return ModelInvalid(f"{source.name}: not a GGUF file")
