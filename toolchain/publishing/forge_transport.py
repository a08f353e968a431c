"""Requests to a forge: bounded, repeated after what may pass, and with the token for the forge's own hosts alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec
import requests
from urllib3.exceptions import HTTPError

from ..core.deadline import Deadline
from ..core.delivery_errors import ForgeRefused, ForgeUnavailable
from ..core.printable import printable
from ..core.records import UNREADABLE
from . import forge_errors
from .forge_errors import LaterError

T = TypeVar("T")
VERSION = "2022-11-28"
"""of GitHub's interface"""
_TIMEOUT_S = (10.0, 60.0)
"""to connect, and between two packets"""
_ANSWER_S = 120.0
_SLOWEST = 16 << 10
"""bytes per second of a download that is not given up"""
_ANSWER_BYTES = 16 << 20
_BLOCK = 1 << 16
_TRIES = 8
_REDIRECTS = 5


class _Credentials(requests.auth.AuthBase):
    """A token, or with `None` nothing at all, not even what a .netrc has for the host."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Transport:
    """Requests with a token to the forge whose interface is at `api`.

    `patience_s` bounds all waiting for the forge. `note` gets a line about each wait; `pause` waits.
    """

    def __init__(
        self,
        api: str,
        token: str,
        *,
        patience_s: float,
        note: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.api = api.rstrip("/")
        self._token, self._left, self._note, self._pause = token, patience_s, note, pause
        self._session = requests.Session()
        self._session.headers.update(
            {"X-GitHub-Api-Version": VERSION, "User-Agent": "turboquant-toolchain", "Accept-Encoding": "identity"}
        )

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def is_own(self, url: str) -> bool:
        """Whether a URL is on the forge's own host, or on uploads.HOST for api.HOST: nobody else gets the token."""
        scheme, host = _origin(self.api)
        own = {(scheme, host)}
        if host.startswith("api."):
            own.add((scheme, f"uploads.{host.removeprefix('api.')}"))
        return _origin(url) in own

    def send(self, method: str, url: str, what: str, *, json: Any = None, data: BinaryIO | None = None) -> bytes:
        """One request of the interface, and the body of its answer. Raises what `forge_errors.check` does."""
        headers = {"Accept": "application/vnd.github+json"}
        if data is not None:
            headers["Content-Type"] = "application/octet-stream"
        with self._sent(method, url, self._token, headers=headers, json=json, data=data) as answer:
            return self._checked(answer, what)

    def answer(
        self, method: str, url: str, kind: type[T], what: str, *, json: Any = None, data: BinaryIO | None = None
    ) -> T:
        """`send`, and the JSON of its answer as `kind`."""
        body = self.send(method, url, what, json=json, data=data)
        try:
            return msgspec.convert(msgspec.json.decode(body), kind, strict=False)
        except UNREADABLE as error:
            raise ForgeRefused(
                f"{what}: an unexpected answer: {printable(str(error), 120)}",
                hint="does publish.forge name a forge's REST interface?",
            ) from None

    @contextmanager
    def download(self, url: str, size: int, what: str) -> Iterator[Iterator[bytes]]:
        """The blocks of a file of `size` bytes. Redirects are followed, but never from https to http."""
        for _ in range(_REDIRECTS):
            token = self._token if self.is_own(url) else None
            with self._sent("GET", url, token, headers={"Accept": "application/octet-stream"}) as answer:
                if not answer.is_redirect:
                    if not answer.ok:
                        if token is None:
                            raise LaterError(f"{answer.status_code} by {_origin(url)[1]}")  # its link may be too old
                        self._checked(answer, what)
                    yield _blocks(answer, Deadline(_ANSWER_S + size / _SLOWEST), size + 1)
                    return
                target = urljoin(url, answer.headers["Location"])
            if urlsplit(url).scheme == "https" != urlsplit(target).scheme:
                raise ForgeRefused(f"{what}: the forge redirects from https to {printable(target, 100)}")
            url = target
        raise ForgeRefused(f"{what}: more than {_REDIRECTS} redirects")

    def repeated(self, what: str, attempt: Callable[[], T], lost: Callable[[], T | None] = lambda: None) -> T:
        """The result of `attempt`, or of `lost`, which looks whether a failed attempt had its effect nevertheless.

        Raises `ForgeUnavailable`.
        """
        for number in itertools.count(1):
            try:
                return attempt()
            except LaterError as error:
                self._wait(what, error, number)
                if (found := lost()) is not None:
                    return found
        raise AssertionError

    def _checked(self, answer: requests.Response, what: str) -> bytes:
        """The body of a success. An error's body may repeat the token, which no message does."""
        body = b"".join(_blocks(answer, Deadline(_ANSWER_S), _ANSWER_BYTES))
        forge_errors.check(answer, body.replace(self._token.encode(), b"(token)"), what, time.time())
        return body

    @contextmanager
    def _sent(self, method: str, url: str, token: str | None, **options: Any) -> Iterator[requests.Response]:
        """An answer whose body is not read yet. Raises `LaterError` for what may be the network's fault."""
        try:
            with self._session.request(
                method, url,
                auth=_Credentials(token), stream=True, allow_redirects=False, timeout=_TIMEOUT_S, **options,
            ) as answer:  # fmt: skip
                yield answer
        except (requests.RequestException, HTTPError, OSError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise ForgeUnavailable(
                    f"{_origin(url)[1]}: its certificate is not trusted",
                    hint="REQUESTS_CA_BUNDLE names a file with your organization's",
                ) from None
            raise LaterError(_cause(error)) from error

    def _wait(self, what: str, error: LaterError, number: int) -> None:
        wait = error.wait_s if error.wait_s is not None else min(0.5 * 2 ** (number - 1), 60.0)
        reason = printable(str(error).replace(self._token, "(token)"), 200)
        if number >= _TRIES or wait > self._left:
            soon = f", in {wait:.0f} s or more" if wait > self._left else ""
            raise ForgeUnavailable(
                f"{what}: given up after {number} {'tries' if number > 1 else 'try'}: {reason}",
                hint=f"run it again{soon}: it goes on with its draft; publish.forge_wait_s bounds the waiting",
            )
        self._left -= wait
        self._note(f"{what}: {reason}; again in {wait:.1f} s")
        self._pause(wait)


def _blocks(answer: requests.Response, deadline: Deadline, most: int) -> Iterator[bytes]:
    """The body as it comes, until it has more than `most` bytes. Raises `LaterError` when it trickles."""
    while block := answer.raw.read1(_BLOCK):
        yield block
        most -= len(block)
        if most < 0:
            return
        if deadline.passed:
            raise LaterError(f"the answer had no end after {deadline.seconds:.0f} s")


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _cause(error: BaseException) -> str:
    """The innermost reason: requests wraps errors of urllib3, which wraps those of the system."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return printable(str(error), 200) or type(error).__name__
