"""One file over HTTP, whose size and SHA-256 are known: an interrupted download goes on where it was."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from . import lookalikes
from .console import Step
from .deadline import Deadline
from .errors import ChecksumMismatch, DiskFull, FetchFailed
from .printable import printable
from .records import flush_directory, flush_to_disk, make_folder, sha256_file

_TIMEOUT_S = (10.0, 60.0)
"""to connect, and between two packets"""
_ANSWER_S = 120.0
_SLOWEST = 16 << 10
"""bytes per second of a download that is not given up"""
_BLOCK = 1 << 16
_TRIES = 5
"""requests for one file; a further one is made only after one that brought some bytes"""


def download(url: str, to: Path, *, size: int, sha256: str, step: Step) -> None:
    """Download `size` bytes to the file `to`, which is complete and checked, or absent.

    What came so far is in `to`.part, and the next call asks for the rest. `step` counts MB. Raises `FetchFailed`,
    `ChecksumMismatch`, and `DiskFull`.
    """
    make_folder(to.parent)
    part = to.with_name(f"{to.name}.part")
    try:
        with part.open("ab") as file:
            _complete(url, file, size, step)
            flush_to_disk(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"{part}: no space left on the disk", hint="free some space: it goes on from there"
            ) from error
        raise
    found = sha256_file(part)
    if found != sha256:
        part.unlink()
        raise ChecksumMismatch(
            f"{url}: SHA-256 is {found}, expected {sha256}",
            hint="a proxy may have changed it, or an earlier part was damaged: the next try starts anew",
        )
    os.replace(part, to)
    flush_directory(to.parent)


def _complete(url: str, file: BinaryIO, size: int, step: Step) -> None:
    """Append until the file has `size` bytes."""
    deadline = Deadline(_ANSWER_S + size / _SLOWEST)
    for number in range(1, _TRIES + 1):
        before = _end(file)
        if before > size:
            before = file.truncate(0)
        if before == size:
            return
        why = _append(url, file, before, size, deadline, step)
        got = _end(file)
        if got == size:
            return
        if got > size:
            file.truncate(0)
            raise FetchFailed(f"{url}: sends more than the expected {size} bytes", hint="is a proxy in between?")
        if got <= before or number == _TRIES or deadline.passed:
            kept = f"{got / 1e6:.1f} of {size / 1e6:.1f} MB are kept: the same command goes on from there"
            raise FetchFailed(f"{url}: {why}", hint=kept if got else "is the network reachable? try again later")


def _append(url: str, file: BinaryIO, start: int, size: int, deadline: Deadline, step: Step) -> str:
    """One request for the bytes from `start` on; why it ended."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
            if answer.ok and lookalikes.is_page(answer.headers.get("Content-Type", "")):
                raise _instead(url, lookalikes.PAGE)
            if answer.status_code == requests.codes.partial_content:
                stated = answer.headers.get("Content-Range", "")
                if not stated.startswith(f"bytes {start}-") or not start:
                    return f"requested the bytes from {start} on, but the server sends {printable(stated, 60)!r}"
            elif answer.status_code == requests.codes.ok:
                if start:  # no ranges: from the beginning
                    file.truncate(0)
            elif answer.status_code == requests.codes.requested_range_not_satisfiable:
                file.truncate(0)
                return "the server has a shorter file"
            else:
                return f"the server answers {answer.status_code} {printable(answer.reason or '', 60)}"
            while block := answer.raw.read1(_BLOCK):
                if not _end(file) and (found := lookalikes.what(block)):
                    raise _instead(url, found)
                file.write(block)
                got = _end(file)
                step.update(got / 1e6, size / 1e6, f"{got / 1e6:.0f} of {size / 1e6:.0f} MB")
                if got > size:
                    return "too long"
                if deadline.passed:
                    return f"not complete after {deadline.seconds:.0f} s"
            return f"ended after {_end(file)} of {size} bytes"
    except (requests.RequestException, HTTPError) as error:
        return f"{urlsplit(url).netloc}: {_cause(error)}"


def _instead(url: str, found: str) -> FetchFailed:
    return FetchFailed(f"{url}: the server sends {found} instead of the file", hint=lookalikes.remedy(found, url))


def _end(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _cause(error: BaseException) -> str:
    """The innermost reason: requests wraps errors of urllib3, which wraps those of the system."""
    with contextlib.suppress(AttributeError):
        while inner := error.__cause__ or error.__context__ or getattr(error, "reason", None):
            if not isinstance(inner, BaseException):
                break
            error = inner
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror, 200)
    return printable(str(error), 200) or type(error).__name__
