"""When a forge may be queried again, by the status and the headers of its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping

FORBIDDEN, TOO_MANY = 403, 429
PAUSE_S = 60.0
"""how long to wait after a refusal without a time"""


def until(status: int, headers: Mapping[str, str], now: float) -> float:
    """When the next query is allowed, in seconds since 1970; 0: now. `headers` ignore upper and lower case."""
    stated = []
    if headers.get("X-RateLimit-Remaining") == "0":
        stated.append(_number(headers.get("X-RateLimit-Reset"), now + PAUSE_S))
    if status in (FORBIDDEN, TOO_MANY):
        after = _number(headers.get("Retry-After"), -1.0)
        if after >= 0 or not stated:
            stated.append(now + (after if after >= 0 else PAUSE_S))
    return max(stated, default=0.0)


def is_limit(status: int, headers: Mapping[str, str], text: str) -> bool:
    """Whether an answer says "later": 429 always does, 403 also stands for a missing permission."""
    if status == FORBIDDEN:
        told = headers.get("X-RateLimit-Remaining") == "0" or "Retry-After" in headers
        return told or "rate limit" in text.lower()
    return status == TOO_MANY


def _number(text: str | None, otherwise: float) -> float:
    try:
        found = float(text) if text else otherwise
    except ValueError:
        return otherwise
    return found if math.isfinite(found) else otherwise
