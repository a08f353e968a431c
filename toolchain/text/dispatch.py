"""The function that the other modules of this package extend."""

from __future__ import annotations

from functools import singledispatch
from typing import Any


@singledispatch
def as_text(record: Any) -> str:
    """A record as text. Raises `TypeError` for a type without a registered text."""
    raise TypeError(f"no text is registered for {type(record).__name__}")
