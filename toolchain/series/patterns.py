"""The regular expressions of a series, which may be another's: searched within bounds."""

from __future__ import annotations

import re

from ..core.bounds import BoundExceeded, bounded
from ..core.errors import SeriesError

_SHOWN = 200


def check(where: str, pattern: str, groups: int = 0) -> None:
    """Raises `SeriesError`, naming `where`, for what is no regular expression, or one with fewer groups."""
    matches(where, pattern, "")
    if re.compile(pattern).groups < groups:
        raise SeriesError(f"{where}: pattern {pattern!r} has no group", hint="put what is wanted into (parentheses)")


def matches(where: str, pattern: str, text: str, flags: int = 0) -> list[re.Match[str]]:
    """All matches in order. Raises `SeriesError`, naming `where`, also for a search that never ends."""
    try:
        with bounded():
            return list(re.finditer(pattern, text, flags))
    except (re.error, BoundExceeded, OverflowError, RecursionError) as error:
        shown = pattern if len(pattern) <= _SHOWN else f"{pattern[:_SHOWN]}..."
        raise SeriesError(f"{where}: pattern {shown!r}: {error}") from error
