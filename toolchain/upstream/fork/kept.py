"""Results that are kept in the workspace. They follow from commit ids, and from which contents are at hand."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ...core.errors import RecordError
from ...core.records import read, sha256_bytes, to_json, write

R = TypeVar("R")


def kept(folder: Path | None, kind: type[R], key: Any, make: Callable[[], R]) -> R:
    """The record that was made for `key` before, else one made now. Without a folder nothing is kept."""
    if folder is None:
        return make()
    digest = sha256_bytes(to_json([_code(), key]).encode())[:24]
    path = folder / f"{kind.__name__.lower()}-{digest}.json"
    try:
        return read(path, kind)
    except RecordError:
        made = make()
        write(path, made)
        return made


@functools.cache
def _code() -> str:
    """Digest of this package: another way to look gives another result."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
