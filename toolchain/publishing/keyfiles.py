"""Files of keys: their names, and how they are written, once and for their owner alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..core import process, records, temporary
from ..core.delivery_errors import SigningFailed
from ..core.errors import ConfigError
from . import signature

ROOT_FILE = "root.json"
ONLINE_ROLES = ("targets", "snapshot", "timestamp")
ROOT_KEYS = ("root-1", "root-2", "root-3")
COMMENT = "turboquant-publisher"


def generate(path: Path) -> Path:
    """Make an Ed25519 key without a passphrase, and `path`.pub, neither of which may exist.

    Raises `SigningFailed`, `ConfigError` where one exists, `MissingTool`.
    """
    with temporary.folder("key", within=path.parent / ".making") as folder:
        process.capture(
            (signature.tool(), "-q", "-t", "ed25519", "-N", "", "-C", COMMENT, "-f", folder / path.name),
            failure=SigningFailed, what="ssh-keygen",
        )  # fmt: skip
        for name, mode in ((path.name, 0o600), (f"{path.name}.pub", 0o644)):
            write_new(path.with_name(name), (folder / name).read_bytes(), mode=mode)
    return path


def write_new(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file that must not exist. Raises `ConfigError` if it does."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except FileExistsError:
        raise ConfigError(f"{path} exists, and a key is never overwritten", hint="name a new folder") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            records.flush_to_disk(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    records.flush_directory(path.parent)
