"""The function that the other modules of this room extend."""

from __future__ import annotations

from functools import singledispatch
from typing import Any


@singledispatch
def as_text(record: Any) -> str:
    """A record for a reader. Raises `TypeError` for a kind of record that has no text."""
    raise TypeError(f"no text is registered for {type(record).__name__}")
