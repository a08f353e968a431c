"""The faults of a small Ollama: answers of every wrong shape, length and speed, and processes that do not behave.

The tests install it beside server_program.py, which asks it at its start and at each call. It is run without the
packages of this project.
"""

import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

_Answer = Callable[[BaseHTTPRequestHandler], Iterator[bytes]]
"""what it sends, in blocks"""

SILENT = ("no-line", "early-line")
"""those that state no cache when they generate"""
_LAST = {
    "null-count": b'"eval_count": null',
    "text-count": b'"eval_count": "four"',
    "nan-count": b'"eval_count": NaN',
    "negative-count": b'"eval_count": -4',
    "huge-count": b'"eval_count": 1' + b"0" * 5000,
    "float-count": b'"eval_count": 4.5',
    "few-tokens": b'"eval_count": 2',
    "text-duration": b'"eval_count": 4, "load_duration": "0.25s"',
    "negative-duration": b'"eval_count": 4, "load_duration": -1',
    "invalid-utf8": b'"eval_count": 4, "context": "\xff\xfe"',
    "nested": b'"eval_count": 4, "context": ' + b"[" * 200_000 + b"]" * 200_000,
    "stated-twice": b'"eval_count": 0, "eval_count": 4',
}
_TEXTS = {"empty-text": b'""', "blank-text": b'" "', "ansi-text": b'"\\u001b[2J"'}
_SLEEP = (sys.executable, "-ISc", "import time; time.sleep(600)")
_BLOCK = b"x" * (1 << 20)
_NAMED = {"/api/version": "version", "/api/generate": "generate"}


def changed(does: str, lines: bytes) -> bytes:
    """The answer of a generation, with the fault in it."""
    if does == "list":
        return b"[" + lines.strip().replace(b"\n", b",") + b"]\n"
    if does in _LAST:
        return lines.replace(b'"eval_count": 4', _LAST[does])
    if does in _TEXTS:
        return lines.replace(b'"x"', _TEXTS[does])
    if does == "leak-children":
        subprocess.Popen(_SLEEP, start_new_session=True)
    if does == "die-in-window":
        _GENERATED.append(1)
        if len(_GENERATED) == 2:  # as often as health asks
            threading.Timer(0.15, os._exit, [9]).start()
    if does == "leak-files":
        _LEAKED.extend(open(os.devnull) for _ in range(64))  # noqa: SIM115, PTH123  never closed: the fault
    return lines


_LEAKED: list[Any] = []
_GENERATED: list[int] = []


def answer(does: str, handler: BaseHTTPRequestHandler) -> bool:
    """Answer a call in the fault's way; false: it is to be answered as usual."""
    fault, _, call = does.rpartition("-in-")
    if call != _NAMED.get(handler.path) or fault not in _SENDING:
        return False
    handler.close_connection = True
    try:
        for block in _SENDING[fault](handler):
            handler.wfile.write(block)
            handler.wfile.flush()
    except OSError:  # the caller has had enough
        pass
    return True


def _half_closed(handler: BaseHTTPRequestHandler) -> Iterator[bytes]:
    handler.connection.shutdown(socket.SHUT_WR)
    time.sleep(600)
    yield b""


def _without_end(head: bytes, block: bytes, pause_s: float = 0.0) -> _Answer:
    """An answer that begins with `head` and goes on with `block` for ever."""

    def sent(_: BaseHTTPRequestHandler) -> Iterator[bytes]:
        yield head
        while True:
            yield block
            time.sleep(pause_s)

    return sent


def _gigabyte(_: BaseHTTPRequestHandler) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n"
    for _number in range(1024):
        yield _BLOCK


def _bomb(_: BaseHTTPRequestHandler) -> Iterator[bytes]:
    body = gzip.compress(_BLOCK * 64, 1)
    yield b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    yield body


def _elsewhere(handler: BaseHTTPRequestHandler) -> Iterator[bytes]:
    host = handler.headers["Host"].encode()
    yield b"HTTP/1.1 307 Moved\r\nLocation: http://%s/api/tags\r\nContent-Length: 0\r\n\r\n" % host


def _shouting(_: BaseHTTPRequestHandler) -> Iterator[bytes]:
    yield b"HTTP/1.1 500 \x1b[31mNo\r\nContent-Length: %d\r\n\r\n" % (10 * len(_BLOCK))
    for _number in range(10):
        yield b"\x1b[31mERROR\x07\n" * (len(_BLOCK) // 12) + b" " * (len(_BLOCK) % 12)


def _colours(_: BaseHTTPRequestHandler) -> Iterator[bytes]:
    body = b'{"error": "\\u001b[2J\\u001b]0;gone\\u0007' + b"sorry " * 10_000 + b'"}'
    yield b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body


_SENDING: dict[str, _Answer] = {
    "half-closed": _half_closed,
    "drip": _without_end(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" ", 0.2),
    "endless": _without_end(b"HTTP/1.1 200 OK\r\n\r\n", b'{"response": "x", "done": false}\n' * 1000),
    "headers": _without_end(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "slow-headers": _without_end(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.2),
    "gigabyte": _gigabyte,
    "bomb": _bomb,
    "redirect": _elsewhere,
    "shout": _shouting,
    "colours": _colours,
}


def begin(does: str, state_cache: Callable[[int, int], None]) -> None:
    """What it does before it listens; `state_cache` prints a line on a cache of so many layers and cells."""
    log = Path(__file__).resolve().parents[4] / "logs/ollama.log"
    if does == "early-line":
        for layers in range(2, 6):
            for cells in range(256, 2049, 256):
                state_cache(layers, cells)
    elif does == "no-log":
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
    elif does == "log-deleted":
        log.unlink()
    elif does == "log-folder":
        log.unlink()
        log.mkdir()
    elif does == "log-pipe":
        log.unlink()
        os.mkfifo(log)
    elif does == "ignore-sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif does == "fork" and os.fork():
        os._exit(0)
    elif does == "daemon":
        _leave()
    elif does == "helper-listens" and not _left():
        time.sleep(600)
    elif does == "child":
        subprocess.Popen(_SLEEP, start_new_session=True)
    elif does == "child-at-stop":
        signal.signal(signal.SIGTERM, _with_child)


def _with_child(_number: int, _frame: object) -> None:
    subprocess.Popen(_SLEEP, start_new_session=True)
    os._exit(0)


def _left() -> bool:
    """Fork twice: true in the grandchild, which leads a session of its own."""
    if child := os.fork():
        os.waitpid(child, 0)
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    return True


def _leave() -> None:
    if not _left():
        os._exit(0)
