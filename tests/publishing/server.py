"""A web server for a publication that can behave badly: endless, slow, cut off, or with a wrong clock."""

from __future__ import annotations

import contextlib
import email.utils
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Behaviour:
    """What the server does to the paths that end with one of these names; an honest one does nothing."""

    endless: str = ""
    """sends the file, and then zeros without an end"""
    slow: str = ""
    """sends a byte a second"""
    slow_headers: str = ""
    """sends a byte of the headers a second"""
    cut: str = ""
    """states the file's size, and closes the connection after `cut_at` bytes"""
    cut_at: int = 0
    clock_s: float = 0.0
    """added to the Date header"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    behaviour = Behaviour()
    stopping: threading.Event

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Of the Date header, and of Last-Modified."""
        return email.utils.formatdate((time.time() if timestamp is None else timestamp) + self._clock(), usegmt=True)

    def _clock(self) -> float:
        return self.behaviour.clock_s

    def do_GET(self) -> None:
        """Send a file as the behaviour says."""
        try:
            self._answer()
        except OSError:  # the client had enough
            self.close_connection = True

    def _answer(self) -> None:
        behaviour, path = self.behaviour, Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        self.close_connection = True
        if _names(behaviour.slow_headers, self.path):
            for byte in b"HTTP/1.0 200 OK\r\n" + b"X-Padding: " + b"a" * 10_000:
                self._drip(bytes([byte]))
                if self.stopping.is_set():
                    return
        self.send_response(200)
        if not _names(behaviour.endless, self.path):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if _names(behaviour.slow, self.path):
            for byte in data:
                self._drip(bytes([byte]))
                if self.stopping.is_set():
                    return
        elif _names(behaviour.cut, self.path):
            self.wfile.write(data[: behaviour.cut_at])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.wfile.write(data)
            while _names(behaviour.endless, self.path) and not self.stopping.is_set():
                self.wfile.write(b"\0" * 65536)

    def _drip(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()
        self.stopping.wait(1.0)

    def log_message(self, *_arguments: Any) -> None:
        """Nothing: the tests look at the client."""


def _names(suffix: str, path: str) -> bool:
    return bool(suffix) and path.endswith(suffix)


class Served(str):
    """The base URL of a folder that is served. `behave` changes the server's behaviour from now on."""

    __slots__ = ("behave",)
    behave: Callable[[Behaviour], None]


@contextlib.contextmanager
def serving(folder: Path, behaviour: Behaviour = Behaviour()) -> Iterator[Served]:
    """Serve a folder on 127.0.0.1, and give its base URL."""
    stopping = threading.Event()

    class Handler(_Handler):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, directory=str(folder), **named)

    Handler.behaviour, Handler.stopping = behaviour, stopping
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.05))
    thread.start()
    try:
        url = Served(f"http://127.0.0.1:{server.server_address[1]}")
        url.behave = lambda new: setattr(Handler, "behaviour", new)
        yield url
    finally:
        stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
