"""Files of a publication, from a folder or from a web server that may do anything: bounded in size and in time.

Nothing here is trusted: whoever reads a file verifies it. The timeout of requests bounds one read, so that a server
that sends a byte a second would hold a call for ever; here a timer shuts the connection at the call's deadline.
"""

from __future__ import annotations

import contextlib
import email.utils
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from ..core import lookalikes
from ..core.delivery_errors import ForgeUnavailable, Tampered
from ..core.errors import ConfigError, reason

_BLOCK = 1 << 16
_STALL_S = 20.0
"""for one read, and to connect"""
_LEAST_RATE = 16 << 10
"""bytes a second that a large file has to come with, on average"""
_MAX_REDIRECTS = 5
_GONE = (requests.codes.not_found, requests.codes.gone)


class Source(Protocol):
    """Where a publication is read from: `name` is a path in it, with slashes."""

    where: str
    date: datetime | None
    """the server's time, where one answered"""

    def chunks(self, name: str, most: int) -> Iterator[bytes]:
        """A file's content, piece by piece. `most` is the size that is expected at most, for the deadline.

        Raises `FileNotFoundError`, `ForgeUnavailable`, `Tampered`.
        """


def source(place: str, timeout_s: float) -> Source:
    """The publication at an http(s) or file URL, or in a folder. Raises `ConfigError` for anything else."""
    scheme = urlsplit(place).scheme
    if scheme in ("http", "https"):
        return _Server(place.rstrip("/"), timeout_s)
    if scheme == "file":
        return FolderSource(Path(unquote(urlsplit(place).path)))
    if "://" in place:
        raise ConfigError(f"{place}: not a folder, and no http, https or file URL", hint="file:///srv/publication")
    return FolderSource(Path(place).expanduser().absolute())


def read(origin: Source, name: str, most: int) -> bytes:
    """A small file. Raises as `Source.chunks` does, and `Tampered` when it has more than `most` bytes."""
    found = bytearray()
    for block in _blocks(origin, name, most):
        found += block
        _bounded(origin, name, len(found), most)
    return bytes(found)


def save(origin: Source, name: str, size: int, file: BinaryIO) -> None:
    """Write a file of `size` bytes. Raises as `read` does; a shorter file is written, and for its digest to refuse."""
    received = 0
    for block in _blocks(origin, name, size):
        received += len(block)
        _bounded(origin, name, received, size)
        file.write(block)


def _blocks(origin: Source, name: str, most: int) -> Iterator[bytes]:
    """The file's content, unless it is a page or a pointer in its place, which no publication has."""
    blocks = origin.chunks(name, most)
    first = next(blocks, b"")
    if found := lookalikes.what(first):
        place = f"{origin.where}/{name}"
        raise ForgeUnavailable(f"{place}: {found} instead of the file", hint=lookalikes.remedy(found, place))
    if first:
        yield first
    yield from blocks


def _bounded(origin: Source, name: str, received: int, most: int) -> None:
    if received > most:
        raise Tampered(
            f"{origin.where}/{name}: more than {most} bytes, which is all that it may have",
            hint="fetch it again; if it stays, tell its publisher",
        )


class FolderSource:
    """A publication in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        self.date: datetime | None = None
        self._folder = folder

    def chunks(self, name: str, most: int) -> Iterator[bytes]:  # noqa: ARG002
        """As `Source.chunks`. A link may lead to a folder inside of the publication, and no file may be one."""
        path = self._folder / name
        if not path.parent.resolve().is_relative_to(self._folder.resolve()) or path.is_symlink():
            raise Tampered(f"{path}: a link, which a publication does not have", hint="publish it again")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise Tampered(f"{path}: not a file", hint="publish it again")
                while block := file.read(_BLOCK):
                    yield block
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ForgeUnavailable(f"{path}: cannot be read: {error.strerror}") from error


class _Server:
    """A publication behind a web server."""

    def __init__(self, base: str, timeout_s: float) -> None:
        parts = urlsplit(base)
        self.where = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # without a password
        self.date: datetime | None = None
        self._base = base
        self._timeout_s = timeout_s

    def chunks(self, name: str, most: int) -> Iterator[bytes]:
        """As `Source.chunks`."""
        url, seconds = f"{self.where}/{name}", self._timeout_s + most / _LEAST_RATE
        with _watched(seconds) as watch, requests.Session() as session:
            session.max_redirects = _MAX_REDIRECTS
            session.mount("http://", _Adapter(watch))
            session.mount("https://", _Adapter(watch))
            try:
                with session.get(
                    f"{self._base}/{name}",
                    headers={"Accept-Encoding": "identity"},
                    stream=True,
                    timeout=min(_STALL_S, self._timeout_s),
                ) as answer:
                    self._look_at(answer, url)
                    while block := answer.raw.read1(_BLOCK):
                        yield block
                if watch.expired:
                    raise requests.Timeout
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                if isinstance(error, FileNotFoundError):
                    raise
                said = f"not finished after {seconds:.0f} s" if watch.expired else _cause(error)
                raise ForgeUnavailable(f"{url}: {said}", hint="is the URL right? else try later") from error

    def _look_at(self, answer: requests.Response, url: str) -> None:
        with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):
            age = timedelta(seconds=max(0, int(answer.headers.get("Age", "0"))))
            date = email.utils.parsedate_to_datetime(answer.headers["Date"]) + age
            self.date = date if date.tzinfo else date.replace(tzinfo=UTC)  # of -0000 it states none
        if answer.status_code in _GONE:
            raise FileNotFoundError(url)
        if answer.status_code != requests.codes.ok:
            raise ForgeUnavailable(f"{url}: the server answers {answer.status_code} {answer.reason}", hint="try later")


class _Watch:
    """Shuts the connections of a call when its time is over."""

    def __init__(self) -> None:
        self.expired = False
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()

    def add(self, connection: socket.socket) -> None:
        """Watch a connection: by a duplicate, as TLS takes the socket itself."""
        with self._lock:
            self._connections.append(connection.dup())
        if self.expired:
            self.expire()

    def expire(self) -> None:
        """The time is over."""
        self.expired = True
        with self._lock:
            for one in self._connections:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Forget the connections."""
        with self._lock:
            for one in self._connections:
                one.close()


@contextlib.contextmanager
def _watched(seconds: float) -> Iterator[_Watch]:
    watch = _Watch()
    timer = threading.Timer(seconds, watch.expire)
    timer.daemon = True
    timer.start()
    try:
        yield watch
    finally:
        timer.cancel()
        watch.close()


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections that a `_Watch` knows."""

    def __init__(self, watch: _Watch) -> None:
        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                made = super()._new_conn()
                watch.add(made)
                return made

        class Secure(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                made = super()._new_conn()
                watch.add(made)
                return made

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Secure

        self._pools = {"http": PlainPool, "https": SecurePool}
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """As requests does, with our connections."""
        super().init_poolmanager(*arguments, **named)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *arguments: Any, **named: Any) -> Any:
        """As requests does, with our connections."""
        manager = super().proxy_manager_for(*arguments, **named)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _cause(error: BaseException) -> str:
    for _ in range(8):  # urllib3's errors are in those of requests, and the system's in these
        inner = (getattr(error, "reason", None), *error.args, error.__cause__)
        if not (found := next((one for one in inner if isinstance(one, BaseException)), None)):
            break
        error = found
    text = re.sub(r"//[^/@ ]*@", "//", " ".join(reason(error).split()))  # a URL's password
    return f"no complete answer: {text[:200]}"
