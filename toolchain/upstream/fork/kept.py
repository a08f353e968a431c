"""Results that are cached in the workspace. They depend on commit ids, and on which contents are available."""

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
    """The cached record for `key`, else a new one. Without a folder nothing is cached."""
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
    """Digest of this package, since other code gives other results."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
