"""What a forge's answers mean: later, never, or no permission. The token never gets into a message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import requests

from ..core import ratelimit
from ..core.delivery_errors import ForgeRefused
from ..core.printable import printable

_TRANSIENT = (408, 425, 500, 502, 503, 504)
_MOVED = (301, 302, 303, 307, 308)
_PERMISSION = "write access to the repository's contents (fine-grained: Contents: write; classic: scope repo)"


class LaterError(Exception):
    """The request may succeed when it is repeated, after `wait_s` seconds if the forge states that."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class NotThereError(Exception):
    """The forge answers 404."""


class RejectedError(Exception):
    """The forge rejects the content of a request (409, 422), with `codes` such as already_exists, and its message."""

    def __init__(self, message: str, codes: frozenset[str]) -> None:
        super().__init__(message)
        self.codes = codes


def check(answer: requests.Response, body: bytes, what: str, now: float) -> None:
    """Return when an answer is a success. Raises the errors of this module, and `ForgeRefused`."""
    status, headers = answer.status_code, answer.headers
    if status < requests.codes.multiple_choices:
        return
    said, codes = _said(body)
    if status in _MOVED:
        raise ForgeRefused(
            f"{what}: the forge redirects to {printable(headers.get('Location', '?'))}",
            hint="the repository was renamed or moved: name it as it is now",
        )
    if ratelimit.is_limit(status, headers, said):
        server_now = _time(headers, now)
        wait = max(0.0, ratelimit.until(status, headers, server_now) - server_now)
        raise LaterError(f"rate limit, {status} {said}".strip(), wait)
    if status in _TRANSIENT:
        given = headers.get("Retry-After", "")
        raise LaterError(f"{status} {said}".strip(), float(given) if given.isdigit() else None)
    if status == requests.codes.unauthorized:
        raise ForgeRefused(f"{what}: the forge does not accept the token: {said}", hint="make a new one; it may be old")
    if status == ratelimit.FORBIDDEN:
        needs = headers.get("X-Accepted-GitHub-Permissions") or headers.get("X-Accepted-OAuth-Scopes")
        single = f"; authorize it at {headers['X-GitHub-SSO']}" if "X-GitHub-SSO" in headers else ""
        raise ForgeRefused(
            f"{what}: the token lacks a permission{f' ({printable(needs)})' if needs else ''}: {said}",
            hint=f"it needs {_PERMISSION}{printable(single)}",
        )
    if status == requests.codes.not_found:
        raise NotThereError(said)
    if status in (requests.codes.conflict, requests.codes.unprocessable_entity):
        raise RejectedError(said, codes)
    raise ForgeRefused(f"{what}: {status} {said}")


def not_there(what: str) -> ForgeRefused:
    """The error for a 404 where there must be something."""
    return ForgeRefused(
        f"{what}: the forge knows no such thing, or hides it from this token",
        hint=f"see owner/name; the token needs {_PERMISSION}",
    )


def _said(body: bytes) -> tuple[str, frozenset[str]]:
    """The message of an error, with those of its fields, and their codes."""
    try:
        data = json.loads(body)
        errors = [one for one in data.get("errors") or () if isinstance(one, dict)]
        codes = frozenset(str(one.get("code")) for one in errors)
        details = [str(one.get("message") or f"{one.get('field')}: {one.get('code')}") for one in errors]
        return printable("; ".join([str(data.get("message", "")), *details])), codes
    except (ValueError, AttributeError, RecursionError, TypeError):
        return printable(body[:300].decode(errors="replace")), frozenset()


def _time(headers: Mapping[str, str], now: float) -> float:
    """The forge's own time: waiting then does not depend on this machine's clock."""
    try:
        return parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except ValueError:
        return now
