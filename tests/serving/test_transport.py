"""Calls of a server that does anything: bounded in time and size, and one message for whatever it answers."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Annotated

import pytest
from msgspec import Meta

from toolchain.core.deadline import Deadline
from toolchain.core.errors import ServerFailed
from toolchain.core.records import record
from toolchain.serving import transport

Serve = Callable[[Iterator[bytes]], str]


@record
class Counted:
    count: Annotated[int, Meta(ge=0, le=1000)]
    text: str = ""


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server that sends these blocks to its one caller, whatever that asks. Returns its URL."""
    with ExitStack() as stack:

        def started(blocks: Iterator[bytes]) -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            threading.Thread(target=_send, args=(listener, blocks), daemon=True).start()
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield started


def _send(listener: socket.socket, blocks: Iterator[bytes]) -> None:
    with contextlib.suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            for block in blocks:
                connection.sendall(block)


def _slowly(head: bytes, piece: bytes) -> Iterator[bytes]:
    yield head
    while True:
        time.sleep(0.02)
        yield piece


def _body(url: str, seconds: float = 0.3, most: int = 10_000) -> bytes:
    with transport.call(url, "GET", "/x", deadline=Deadline(seconds), most_bytes=most) as answer:
        return answer.body()


@pytest.mark.parametrize(
    ("head", "piece", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b" ", "not finished after 0.3 s"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", "not finished after 0.3 s"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x", "no answer: timed out"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", "no answer: timed out"),
    ],
)
def test_a_slow_answer_ends_with_the_deadline(serve: Serve, head: bytes, piece: bytes, reason: str) -> None:
    url, started = serve(_slowly(head, piece)), time.monotonic()
    with pytest.raises(ServerFailed, match=reason):
        _body(url)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    "blocks",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\n", *[b"x" * 1000] * 20],
        [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 1000] * 20],
        [b"HTTP/1.1 200 OK\r\nX: ", *[b"x" * 1000] * 20],
    ],
)
def test_a_large_answer_is_not_read(serve: Serve, blocks: list[bytes]) -> None:
    with pytest.raises(ServerFailed, match="the answer is too large"):
        _body(serve(iter(blocks)), seconds=20)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "no answer"),
        (b"SSH-2.0-OpenSSH\r\n", "no answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "broke off after 3 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc", "broke off"),
    ],
)
def test_what_is_no_answer(serve: Serve, sent: bytes, reason: str) -> None:
    with pytest.raises(ServerFailed, match=reason):
        _body(serve(iter([sent])), seconds=20)


@pytest.mark.parametrize("host", ["x" * 300, "a..b", "127.0.0.1:port"])
def test_what_is_no_address(host: str) -> None:
    with pytest.raises(ServerFailed, match="no answer"):
        _body(f"http://{host}")


def test_a_redirect_is_not_followed(serve: Serve) -> None:
    url = serve(iter([b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"]))
    with transport.call(url, "GET", "/", deadline=Deadline(5)) as answer:
        assert (answer.status, answer.ok) == (302, False)


def test_lines_come_one_by_one(serve: Serve) -> None:
    url = serve(iter([b"HTTP/1.1 200 OK\r\n\r\n", b"a\n\n", b"b", b"c\n"]))
    with transport.call(url, "GET", "/", deadline=Deadline(5)) as answer:
        assert list(answer.lines()) == [b"a\n", b"bc\n"]


def test_lines_end_with_the_deadline(serve: Serve) -> None:
    url = serve(itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b"{}\n")))
    with (
        pytest.raises(ServerFailed, match=r"not finished|too large"),
        transport.call(url, "GET", "/", deadline=Deadline(0.2)) as answer,
    ):
        for _ in answer.lines():
            pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'[{"count": 1}]',
        b'{"count": null}',
        b'{"count": "four"}',
        b'{"count": 1.0}',
        b'{"count": NaN}',
        b'{"count": 1e999}',
        b'{"count": -1}',
        b'{"count": 1001}',
        b'{"count": 1' + b"0" * 6000 + b"}",
        b'{"count": 1, "text": 1}',
        b'{"count": 1, "count": 2}',
        b'{"count": 1, "other": {"a": 1, "a": 2}}',
        b'{"count": 1, "other": "\xff"}',
        b'{"count": 1, "text": "\\ud800"}',
        b'{"count": 1, "other": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"count": 1} {"count": 1}',
        "\ufeff{}".encode("utf-16"),
    ],
)
def test_json_of_another_shape_is_one_message(data: bytes) -> None:
    with pytest.raises(ServerFailed) as caught:
        transport.decode(data, Counted, "http://x/y", "an Ollama")
    assert caught.value.message.startswith("http://x/y: not an Ollama: ")
    assert len(caught.value.message) < 300
    assert caught.value.message.isprintable()


def test_json_of_the_right_shape() -> None:
    assert transport.decode(b'{"more": [1.5], "count": 3, "text": "\xc3\xa9"}', Counted, "", "").text == "\xe9"
