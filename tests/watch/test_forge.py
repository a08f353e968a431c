"""The forge's interface, answered by a server of ours: fresh, unchanged, limited, broken and out of reach."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from toolchain.upstream.watch.forge import Asked, ask

RELEASES = [
    {"tag_name": "b5", "name": "", "published_at": "2026-08-02T00:00:00Z", "html_url": "https://forge/b5"},
    {"tag_name": "b6", "name": "six", "draft": True},
    {"tag_name": "b7", "name": "a nightly build", "prerelease": True},
    {"tag_name": "v0.4.0-rc1", "prerelease": True, "published_at": "2026-08-03T00:00:00Z"},
]
LATEST = {"tag_name": "v0.3.0", "name": "v0.3.0", "published_at": "2026-07-25T00:00:00Z", "html_url": "https://forge/v"}
PULLS = {"items": [{"number": 7, "title": "TurboQuant", "created_at": "2026-08-01T00:00:00Z", "html_url": "u"}]}


class Forge(ThreadingHTTPServer):
    """Answers what it is told to, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []
        self.status, self.headers, self.body = 200, dict[str, str](), ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api"


class _Handler(BaseHTTPRequestHandler):
    server: Forge

    def do_GET(self) -> None:
        forge = self.server
        known = self.headers.get("If-None-Match", "")
        forge.asked.append((self.path, known))
        status = 304 if forge.status == 200 and known == '"v1"' and not forge.body else forge.status
        data: Any = RELEASES if "/releases?" in self.path else LATEST if "/releases/" in self.path else PULLS
        if data is None:
            status = 404
        body = b"" if status == 304 else (forge.body or json.dumps(data)).encode()
        self.send_response(status)
        for name, value in {"ETag": '"v1"', "Content-Length": str(len(body)), **forge.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def forge() -> Iterator[Forge]:
    server = Forge()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def asking(forge: Forge, root: Path, now: float = 1000.0) -> Asked:
    return ask(forge.url, ("ggml-org/llama.cpp",), ("turboquant",), root / "forge.json", lambda: now)


RELEASED = [f"ggml-org/llama.cpp {tag}" for tag in ("b5", "v0.4.0-rc1", "v0.3.0")]
KEYS = [*RELEASED, "ggml-org/llama.cpp#7"]


def test_releases_and_pull_requests(forge: Forge, tmp_path: Path) -> None:
    found = asking(forge, tmp_path)
    assert [item.key for item in found.items] == KEYS, "a draft is no release, nor is a nightly build"
    assert (found.items[0].title, found.items[0].date, found.notes) == ("b5", "2026-08-02", ())
    assert "is:pr+turboquant&" in forge.asked[2][0]


def test_words_of_titles(forge: Forge, tmp_path: Path) -> None:
    found = ask(forge.url, ("a/b",), (), tmp_path / "forge.json", titles=("flash attention", "Metal"))
    assert [item.key for item in found.items][-1] == "a/b#7"
    assert "q=repo:a/b+is:pr+%22flash+attention%22+in:title&" in forge.asked[2][0]
    assert "q=repo:a/b+is:pr+Metal+in:title&" in forge.asked[3][0]


def test_a_repository_without_a_release(forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "LATEST", None)
    found = asking(forge, tmp_path)
    assert ([item.key for item in found.items], found.notes) == ([*RELEASED[:2], KEYS[-1]], ())


def test_what_did_not_change_is_not_sent_again(forge: Forge, tmp_path: Path) -> None:
    first = asking(forge, tmp_path)
    again = asking(forge, tmp_path)
    assert [known for _, known in forge.asked] == ["", "", "", '"v1"', '"v1"', '"v1"']
    assert again == first


@pytest.mark.parametrize(
    ("status", "headers", "until"),
    [
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1500"}, 1500),
        (429, {"Retry-After": "30"}, 1030),
        (403, {}, 1060),
        (429, {"Retry-After": "soon"}, 1060),
        (200, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1200"}, 1200),
    ],
)
def test_limits_are_respected(forge: Forge, tmp_path: Path, status: int, headers: dict[str, str], until: int) -> None:
    before = asking(forge, tmp_path)
    forge.status, forge.headers = status, headers
    limited = asking(forge, tmp_path)
    assert limited.items == before.items, "what is known is still told"
    assert len(forge.asked) == 4, "after one refusal nothing more is asked"
    assert any("rate limit" in note for note in limited.notes)
    forge.status, forge.headers = 200, {}
    asking(forge, tmp_path, now=until - 1)
    assert len(forge.asked) == 4
    assert asking(forge, tmp_path, now=until + 1).notes == ()
    assert len(forge.asked) == 7


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, "oops", "500"),
        (404, "{}", "404"),
        (200, "<html>", "Expecting value"),
        (200, '{"unexpected": 1}', "unexpected answer"),
        (200, "[3]", "unexpected answer"),
        (200, '{"items": [{"number": "x", "title": "y"}]}', ""),
    ],
)
def test_answers_that_are_none(forge: Forge, tmp_path: Path, status: int, body: str, said: str) -> None:
    before = asking(forge, tmp_path)
    forge.status, forge.body = status, body
    found = asking(forge, tmp_path)
    assert found.items == before.items
    assert len(found.notes) == (2 if status == 404 else 3)
    assert said in found.notes[0]


def test_out_of_reach(forge: Forge, tmp_path: Path) -> None:
    before = asking(forge, tmp_path)
    forge.shutdown()
    forge.server_close()
    found = asking(forge, tmp_path)
    assert found.items == before.items
    (note,) = found.notes
    assert "unavailable" in note


def test_damaged_answers_are_asked_for_again(forge: Forge, tmp_path: Path) -> None:
    asking(forge, tmp_path)
    damaged = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert len(damaged) == 4, "what is known, and three answers"
    for path in damaged:
        path.write_text("{")
    assert [item.key for item in asking(forge, tmp_path).items] == KEYS
    assert forge.asked[-1][1] == ""
