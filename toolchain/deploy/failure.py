"""What went wrong in a deploy, in words, with the files that explain it. Nothing here fails, whatever is broken."""

from __future__ import annotations

import contextlib
import os
import traceback
from pathlib import Path

from ..core import records
from ..core.errors import ToolchainError
from . import ownership, store
from .prefix import Prefix

_CAPTURE_BYTES = 1 << 20
_TEXT = 300
KEPT = 5
"""files of one kind that stay"""


def describe(error: BaseException, logs: Path) -> str:
    """One of ours by its message. Anything else by its type and place, with its traceback in a file in `logs`."""
    if isinstance(error, ToolchainError):
        return error.message
    if not isinstance(error, Exception):
        return "interrupted"
    text = " ".join(str(error).split())[:_TEXT]
    if isinstance(error, OSError):
        what = f"the deployer failed: {text or type(error).__name__}"
    else:
        what = f"a bug of the deployer: {type(error).__name__}: {text}{_place(error)}"
    try:
        trace = "".join(traceback.format_exception(error))
        path = logs / f"deployer-{store.stamp()}.txt"
        records.write_bytes(path, trace.encode(errors="replace"))
        _keep_newest(logs, "deployer-*.txt")
    except Exception as second:
        return f"{what}\n  its traceback could not be saved: {second}"
    return f"{what}\n  its traceback: {path}"


def capture(log: Path, offset: int, target: Path) -> tuple[str, tuple[str, ...]]:
    """Save what the service logged since `offset` in `target`.

    Returns where it is, or why it was not saved; and its last lines.
    """
    try:
        data = b""
        if log.is_file():
            with ownership.open_log(log) as file:
                file.seek(max(offset, os.fstat(file.fileno()).st_size - _CAPTURE_BYTES))
                data = file.read(_CAPTURE_BYTES)
        lines = tuple(data.decode(errors="replace").splitlines())
    except (OSError, ValueError, MemoryError, ToolchainError) as error:
        return f"{log} (unreadable: {error})", ()
    try:
        records.write_bytes(target, data)
        _keep_newest(target.parent, "failed-*.log")
    except (OSError, ToolchainError) as error:
        return f"{log} (no copy: {getattr(error, 'strerror', '') or error})", lines
    return str(target), lines


def log_folder(prefix: Prefix) -> str:
    """Make sure that logs/ is a folder, and return what was done about a file or a dangling link in its place.

    A manager does not start a service whose log it cannot open.
    """
    try:
        records.make_folder(prefix.logs)
    except NotADirectoryError:
        aside = store.set_aside(prefix.logs)
        records.make_folder(prefix.logs)
        return f"{prefix.logs} was no folder; what was there is now {aside.name}"
    return ""


def log_file(log: Path) -> str:
    """Make sure that the service's log is a file, if it is there, and return what was done about anything else."""
    if log.is_file() or not (log.exists() or log.is_symlink()):
        return ""
    return f"{log} was no file; what was there is now {store.set_aside(log).name}"


def _keep_newest(folder: Path, pattern: str) -> None:
    with contextlib.suppress(OSError):  # old ones may stay; what was kept matters more
        for path in sorted(folder.glob(pattern), key=lambda path: path.lstat().st_mtime)[:-KEPT]:
            path.unlink(missing_ok=True)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
