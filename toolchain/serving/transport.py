"""HTTP calls of a server that may do anything: bounded in time and size, no redirects, no proxy, no decompression.

The timeout of requests or urllib3 bounds a single read, so that a server that sends a byte a second holds a call for
ever. Here the socket itself knows the deadline of the whole call, and how much it may receive, headers included.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import msgspec

from ..core.deadline import Deadline
from ..core.errors import ServerFailed
from ..core.printable import printable

R = TypeVar("R")
MOST_BYTES = 4 << 20
"""of an answer, with its headers, unless a caller expects more"""
_LINE_BYTES = 1 << 20
_BLOCK = 1 << 16
_TROUBLES = (OSError, http.client.HTTPException, ValueError)
"""what goes wrong with a call; ValueError: a host name or a chunk's size that is none"""


class _TooMuchError(OSError):
    """The answer is larger than the caller accepts."""


class _Socket(socket.socket):
    """A socket whose every operation ends by `deadline`, and that receives `most` bytes."""

    deadline: Deadline
    most: int

    def recv_into(self, *arguments: Any) -> int:
        self._wait()
        received = super().recv_into(*arguments)
        self.most -= received
        if self.most < 0:
            raise _TooMuchError("the answer is too large")
        return received

    def sendall(self, *arguments: Any) -> None:
        self._wait()
        super().sendall(*arguments)

    def connect(self, address: Any) -> None:
        self._wait()
        super().connect(address)

    def _wait(self) -> None:
        if self.deadline.passed:
            raise TimeoutError("timed out")
        self.settimeout(self.deadline.left or 0.001)


class _Connection(http.client.HTTPConnection):
    """One connection for one call."""

    def __init__(self, host: str, port: int, deadline: Deadline, most: int) -> None:
        super().__init__(host, port)
        self._deadline, self._most = deadline, most

    def connect(self) -> None:
        failure: OSError = OSError("the host has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            connected = _Socket(family, kind, protocol)
            connected.deadline, connected.most = self._deadline, self._most
            try:
                connected.connect(address)
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sock = connected
                return
            except OSError as error:
                connected.close()
                failure = error
        raise failure


class Answer:
    """The status of an answer, and its body, of which nothing is kept."""

    def __init__(self, where: str, response: http.client.HTTPResponse, deadline: Deadline) -> None:
        self.where = where
        self.status = response.status
        self.reason = printable(response.reason)
        self._response = response
        self._deadline = deadline

    @property
    def ok(self) -> bool:
        """Whether the status is a success. A redirect is none: nothing follows it."""
        return 200 <= self.status < 300

    def body(self) -> bytes:
        """The whole body. Raises `ServerFailed` when it breaks off, takes too long or is too large."""
        found = bytearray()
        with self._told():
            while block := self._response.read(_BLOCK):  # never all at once: its stated length may be any number
                found += block
        if self._response.length:
            raise ServerFailed(f"{self.where}: the answer broke off after {len(found)} bytes")
        return bytes(found)

    def lines(self) -> Iterator[bytes]:
        """The lines of the body that are not empty, as they come. Raises as `body` does."""
        while True:
            with self._told():
                line = self._response.readline(_LINE_BYTES)
                if self._deadline.passed:
                    raise TimeoutError("timed out")
                if len(line) >= _LINE_BYTES:
                    raise _TooMuchError(f"a line has more than {_LINE_BYTES} bytes")
            if not line:
                return
            if line.strip():
                yield line

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise ServerFailed(f"{self.where}: not finished after {self._deadline.seconds:g} s") from error
        except _TROUBLES as error:
            raise ServerFailed(f"{self.where}: the answer broke off: {_cause(error)}") from error


@contextlib.contextmanager
def call(
    base_url: str,
    method: str,
    path: str,
    *,
    deadline: Deadline,
    json: Any = None,
    data: BinaryIO | None = None,
    most_bytes: int = MOST_BYTES,
    key: str = "",
) -> Iterator[Answer]:
    """Call `base_url` + `path` with a JSON object, a file or nothing, and give the answer, with any status.

    `key` is an API key to send.

    The call and the reading of its answer end by `deadline`. Raises `ServerFailed` when no answer comes.
    """
    where = base_url + path
    headers = {"Connection": "close", **({"Authorization": f"Bearer {key}"} if key else {})}
    body: bytes | BinaryIO | None = data
    if json is not None:
        body = msgspec.json.encode(json)
        headers["Content-Type"] = "application/json"
    elif data is not None:
        headers["Content-Length"] = str(_size(data))
    connection = None
    try:
        parts = urlsplit(base_url)
        connection = _Connection(parts.hostname or "", parts.port or 80, deadline, most_bytes)
        connection.request(method, parts.path + path, body=body, headers=headers)
        response = connection.getresponse()
    except _TROUBLES as error:
        if connection is not None:
            connection.close()
        raise ServerFailed(f"{where}: no answer: {_cause(error)}") from error
    with contextlib.closing(connection), response:
        yield Answer(where, response, deadline)


def decode(data: bytes, kind: type[R], where: str, expected: str) -> R:
    """JSON as a record. Raises `ServerFailed`, with `where` and what was `expected` there.

    Strict: numbers are numbers in the record's range, texts are UTF-8, and no object states a name twice.
    """
    try:
        json.loads(data.decode(), object_pairs_hook=_unique)  # msgspec takes the last of two, and skips invalid UTF-8
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        said = printable(data.decode(errors="replace"), 80)
        raise ServerFailed(f"{where}: not {expected}: {printable(str(error), 120)}: {said!r}") from error


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is stated twice")
    return found


def _size(file: BinaryIO) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size


def _cause(error: BaseException) -> str:
    """The reason, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror)
    return printable(str(error)) or type(error).__name__
