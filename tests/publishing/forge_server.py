"""A forge of our own: GitHub's REST interface for releases, in threads of this process, with faults on request.

Modelled, after GitHub's documentation and what projects report about it:
- a draft has no tag, is not found by its tag, and is listed only for a token that may write; several drafts may have
  one tag; a new draft may be missing from the list for a moment (`lag`);
- publishing makes the tag; a tag that a published release has is refused (422, already_exists); with `immutable`,
  a published release takes no files and loses none, and its tag can never be used again, also when it was deleted;
- an upload goes to `upload_url`; a second one of the same name is refused (422, already_exists), also while the first
  is only half there; one that breaks off leaves an asset of state "starter" and size 0; special characters and spaces
  in its name become dots;
- a download is a redirect to a store on another origin, whose links need no token (`store`), or the content itself;
- 401 for an unknown token, 403 with the accepted permissions for one that may only read, 404 for what a token may not
  see; answers in pages.

Where it may differ from GitHub: there are no users, organizations, rate limits (except as faults) or git objects;
links of the store do not expire; messages are alike, not equal; only the list of drafts is late; a broken upload always
leaves its "starter", where GitHub may also leave nothing; a burnt tag is refused when a draft becomes public, not when
it is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

WRITER, READER = "token-that-may-write", "token-that-may-read"
REPOSITORY = "owner/name"
_BLOCK = 1 << 14


@dataclass
class Fault:
    """What happens instead of the answer to the next requests that match.

    answer: `status`, with no effect          lost-answer: it has its effect, and the answer is `status`
    drop: the connection ends at once         lost: it has its effect, then the connection ends
    cut: ends after `at` bytes of an upload   short: a download ends after `at` bytes
    wrong: a byte of a download is another    trickle: a byte of it at a time
    """

    method: str
    path: str
    kind: Literal["answer", "drop", "lost", "lost-answer", "cut", "wrong", "short", "trickle"]
    status: int = 502
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    at: int = 0
    times: int = 1
    after: int = 0
    """so many requests that match are let through first"""


@dataclass
class Asset:
    """A stored file."""

    id: int
    name: str
    label: str
    data: bytes = b""
    state: str = "starter"


@dataclass
class Release:
    """A release of the repository."""

    id: int
    tag_name: str
    name: str
    body: str
    draft: bool
    prerelease: bool
    target: str
    immutable: bool = False
    hidden: int = 0
    """for how many more lists it is missing"""
    assets: dict[int, Asset] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """In its URLs."""
        return f"untagged-{self.id:x}" if self.draft else self.tag_name


class ForgeServer(ThreadingHTTPServer):
    """The forge, and with `store` its storage on another port."""

    daemon_threads = True

    def __init__(self, *, store: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = StoreServer(self) if store else None
        self.lock = threading.RLock()
        self.releases = dict[int, Release]()
        self.tags, self.burnt = set[str](), set[str]()
        self.immutable = False
        self.tells_digests = True
        self.lag = 0
        self.renames: Callable[[str], str] = lambda name: re.sub(r"[^A-Za-z0-9._+@-]", ".", name).strip(".")
        self.faults = list[Fault]()
        self.requests = list[tuple[str, str]]()
        self.publications = 0
        self.at_point: Callable[[str], None] = lambda _: None
        """called at every point where a client may end"""
        self._next = 100

    @property
    def url(self) -> str:
        """The root of the interface."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def number(self) -> int:
        """A new id."""
        with self.lock:
            self._next += 1
            return self._next

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets; it is used up."""
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.path, path):
                    if fault.after:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def add(self, tag: str, *, draft: bool = True, body: str = "", immutable: bool = False) -> Release:
        """A release of somebody else."""
        made = Release(self.number(), tag, tag, body, draft, False, "main", immutable=immutable)
        self.releases[made.id] = made
        if not draft:
            self.tags.add(tag)
        return made

    def public(self) -> list[Release]:
        """All that is published."""
        return [one for one in self.releases.values() if not one.draft]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is none."""


class StoreServer(ThreadingHTTPServer):
    """Where downloads come from. A request with a token is a leak."""

    daemon_threads = True

    def __init__(self, forge: ForgeServer) -> None:
        super().__init__(("127.0.0.1", 0), _StoreHandler)
        self.forge = forge
        self.leaks = list[str]()

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is none."""


@contextlib.contextmanager
def serving(*, store: bool = True) -> Iterator[ForgeServer]:
    """A running forge."""
    forge = ForgeServer(store=store)
    servers = [one for one in (forge, forge.store) if one]
    threads = [threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02}) for one in servers]
    for thread in threads:
        thread.start()
    try:
        yield forge
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


class _GoneError(Exception):
    """The connection ends without an answer."""


class _Refusal(Exception):
    def __init__(self, status: int, message: str, *, errors: list[dict[str, str]] | None = None, **headers: str):
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}
        self.body = {"message": message, **({"errors": errors} if errors else {})}


class _Sending(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        return

    def reset(self) -> None:
        """End the connection as a crash does."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def send_file(self, forge: ForgeServer, asset: Asset, fault: Fault | None) -> None:
        data = asset.data
        if fault and fault.kind == "wrong":
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        end = fault.at if fault and fault.kind == "short" else len(data)
        size = 1 if fault and fault.kind == "trickle" else _BLOCK
        for start in range(0, end, size):
            forge.at_point("download")
            self.wfile.write(data[start : min(start + size, end)])
            if size == 1:
                time.sleep(0.01)
        if end < len(data):
            self.reset()


class _StoreHandler(_Sending):
    server: StoreServer

    def do_GET(self) -> None:
        if "Authorization" in self.headers:
            self.server.leaks.append(self.path)
        forge = self.server.forge
        asset = next(
            one
            for release in list(forge.releases.values())
            for one in list(release.assets.values())
            if f"/{one.id}" == self.path
        )
        fault = forge.fault("GET", f"/store/{asset.name}")
        if fault and fault.kind == "answer":
            self.send_response(fault.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_file(forge, asset, fault)


class _Handler(_Sending):
    server: ForgeServer

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _handle(self) -> None:
        forge, url = self.server, urlsplit(self.path)
        forge.requests.append((self.command, self.path))
        forge.at_point(f"{self.command} {url.path}")
        fault = forge.fault(self.command, unquote(self.path))
        try:
            if fault and fault.kind == "drop":
                raise _GoneError
            if fault and fault.kind == "answer":
                self._read(None)
                self._answer(fault.status, fault.body, fault.headers)
                return
            status, body = self._result(url.path, {key: one[0] for key, one in parse_qs(url.query).items()}, fault)
            forge.at_point("effect")
            if fault and fault.kind == "lost":
                raise _GoneError
            if fault and fault.kind == "lost-answer":
                status, body = fault.status, fault.body
            if isinstance(body, Asset):
                self.send_file(forge, body, fault)
            else:
                headers = {"Location": str(body)} if status == 302 else {}
                self._answer(status, None if headers else body, headers)
        except _Refusal as refused:
            self._answer(refused.status, refused.body, refused.headers)
        except (_GoneError, OSError):
            self.reset()

    def _answer(self, status: int, body: Any, headers: dict[str, str]) -> None:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response_only(status)
        for name, value in {"Date": self.date_time_string(), "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _read(self, most: int | None) -> bytes:
        """The body of the request. Raises `_GoneError` when it ends early, or after `most` bytes."""
        left, blocks = int(self.headers.get("Content-Length", 0)), list[bytes]()
        end = left if most is None else min(most, left)
        while end:
            block = self.rfile.read1(min(end, _BLOCK))
            if not block:
                raise _GoneError
            blocks.append(block)
            end, left = end - len(block), left - len(block)
            self.server.at_point("body")
        if left:
            raise _GoneError
        return b"".join(blocks)

    # -- the interface -----------------------------------------------------------------------------

    def _result(self, path: str, query: dict[str, str], fault: Fault | None) -> tuple[int, Any]:
        """Status, and JSON, a file or a link."""
        forge = self.server
        if self.command == "GET" and (found := re.fullmatch(rf"/{REPOSITORY}/releases/download/(.+)/(.+)", path)):
            return self._for_anybody(unquote(found[1]), unquote(found[2]))
        if self.command == "POST" and (found := re.fullmatch(rf"/uploads/repos/{REPOSITORY}/releases/(\d+)", path)):
            return self._uploaded(int(found[1]), query, fault)
        body = json.loads(self._read(None) or b"{}")
        may_write = self._may_write()
        root = f"/repos/{REPOSITORY}"
        if not path.startswith(root):
            raise _Refusal(404, "Not Found")
        path = path.removeprefix(root)
        if self.command != "GET" and not may_write:
            raise _Refusal(
                403, "Resource not accessible by personal access token", X_Accepted_GitHub_Permissions="contents=write"
            )
        with forge.lock:
            if path == "/releases" and self.command == "POST":
                return 201, self._shown(self._created(body))
            if path == "/releases":
                return 200, self._page([self._shown(one) for one in self._listed(may_write)], query)
            if found := re.fullmatch(r"/releases/tags/(.+)", path):
                tag = unquote(found[1])
                return 200, self._shown(self._one(lambda one: not one.draft and one.tag_name == tag))
            if found := re.fullmatch(r"/git/ref/tags/(.+)", path):
                if unquote(found[1]) not in forge.tags:
                    raise _Refusal(404, "Not Found")
                return 200, {"ref": f"refs/tags/{unquote(found[1])}"}
            if found := re.fullmatch(r"/releases/assets/(\d+)", path):
                return self._asset(int(found[1]))
            if found := re.fullmatch(r"/releases/(\d+)(/assets)?", path):
                number = int(found[1])
                one = self._one(lambda one: one.id == number and (may_write or not one.draft))
                if found[2]:
                    return 200, self._page([self._shown_asset(one, asset) for asset in one.assets.values()], query)
                return self._release(one, body)
        raise _Refusal(404, "Not Found")

    def _may_write(self) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in (WRITER, READER):
            raise _Refusal(401, f"Bad credentials: {token}")
        return token == WRITER

    def _created(self, body: dict[str, Any]) -> Release:
        tag = body["tag_name"]
        made = Release(
            self.server.number(), tag, body.get("name", ""), body.get("body", ""), body.get("draft", False),
            body.get("prerelease", False), body.get("target_commitish", "main"), hidden=self.server.lag,
        )  # fmt: skip
        if not made.draft:
            self._make_public(made)
        self.server.releases[made.id] = made
        return made

    def _listed(self, may_write: bool) -> Iterator[Release]:
        for one in sorted(self.server.releases.values(), key=lambda one: -one.id):
            if one.draft and one.hidden:
                one.hidden -= 1
            elif may_write or not one.draft:
                yield one

    def _release(self, one: Release, body: dict[str, Any]) -> tuple[int, Any]:
        if self.command == "DELETE":
            del self.server.releases[one.id]
            return 204, None
        if self.command == "PATCH":
            if one.immutable:
                raise _Refusal(422, "Cannot change an immutable release")
            if one.draft and body.get("draft") is False:
                self._make_public(one)
            one.body = body.get("body", one.body)
        return 200, self._shown(one)

    def _make_public(self, one: Release) -> None:
        forge = self.server
        if one.tag_name in forge.burnt:
            error = {"resource": "Release", "code": "custom", "field": "tag_name"}
            raise _Refusal(
                422, "Validation Failed",
                errors=[{**error, "message": "tag_name was used by an immutable release"}],
            )  # fmt: skip
        if any(other.tag_name == one.tag_name for other in forge.public()):
            error = {"resource": "Release", "code": "already_exists", "field": "tag_name"}
            raise _Refusal(422, "Validation Failed", errors=[error])
        one.draft, one.immutable = False, forge.immutable
        forge.tags.add(one.tag_name)
        forge.publications += 1
        if forge.immutable:
            forge.burnt.add(one.tag_name)

    def _uploaded(self, identifier: int, query: dict[str, str], fault: Fault | None) -> tuple[int, Any]:
        forge, name = self.server, self.server.renames(query["name"])
        may_write = self._may_write()
        with forge.lock:
            one = self._one(lambda one: one.id == identifier)
            refused = None if may_write else _Refusal(403, "Resource not accessible by personal access token")
            if one.immutable:
                refused = _Refusal(422, "Cannot upload assets to an immutable release")
            elif any(asset.name == name for asset in one.assets.values()):
                error = {"resource": "ReleaseAsset", "code": "already_exists", "field": "name"}
                refused = _Refusal(422, "Validation Failed", errors=[error])
            elif refused is None:
                asset = Asset(forge.number(), name, query.get("label", ""))
                one.assets[asset.id] = asset
        if refused:
            self._read(None)
            raise refused
        data = self._read(fault.at if fault and fault.kind == "cut" else None)
        with forge.lock:
            asset.data, asset.state = data, "uploaded"
            return 201, self._shown_asset(one, asset)

    def _asset(self, identifier: int) -> tuple[int, Any]:
        forge = self.server
        one = self._one(lambda one: identifier in one.assets)
        asset = one.assets[identifier]
        if self.command == "DELETE":
            if one.immutable:
                raise _Refusal(422, "Cannot delete assets of an immutable release")
            del one.assets[identifier]
            return 204, None
        if "octet-stream" not in self.headers.get("Accept", ""):
            return 200, self._shown_asset(one, asset)
        if asset.state != "uploaded":
            raise _Refusal(404, "Not Found")
        return (302, f"{forge.store.url}/{asset.id}") if forge.store else (200, asset)

    def _for_anybody(self, tag: str, name: str) -> tuple[int, Any]:
        """A published file by its public link, which needs no token."""
        with self.server.lock:
            one = self._one(lambda one: not one.draft and one.tag_name == tag)
            for asset in one.assets.values():
                if asset.name == name:
                    return (302, f"{self.server.store.url}/{asset.id}") if self.server.store else (200, asset)
        raise _Refusal(404, "Not Found")

    def _one(self, wanted: Callable[[Release], bool]) -> Release:
        for one in self.server.releases.values():
            if wanted(one):
                return one
        raise _Refusal(404, "Not Found")

    def _page(self, rows: list[Any], query: dict[str, str]) -> list[Any]:
        size = min(int(query.get("per_page", 30)), 100)
        start = (int(query.get("page", 1)) - 1) * size
        return rows[start : start + size]

    def _shown(self, one: Release) -> dict[str, Any]:
        url = self.server.url
        return {
            "id": one.id,
            "tag_name": one.tag_name,
            "name": one.name,
            "body": one.body,
            "draft": one.draft,
            "prerelease": one.prerelease,
            "immutable": one.immutable,
            "html_url": f"{url}/{REPOSITORY}/releases/tag/{one.place}",
            "upload_url": f"{url}/uploads/repos/{REPOSITORY}/releases/{one.id}{{?name,label}}",
            "author": {"login": "owner"},
        }

    def _shown_asset(self, one: Release, asset: Asset) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(asset.data).hexdigest()}" if asset.state == "uploaded" else None
        return {
            "id": asset.id,
            "name": asset.name,
            "label": asset.label,
            "state": asset.state,
            "size": len(asset.data),
            **({"digest": digest} if self.server.tells_digests else {}),
            "browser_download_url": f"{self.server.url}/{REPOSITORY}/releases/download/{one.place}/{asset.name}",
        }
