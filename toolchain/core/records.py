"""Frozen records that the stages pass on, and their atomic JSON files.

Every stage's result is a `record`. It is written beside its products, so that a run can stop, resume and be
inspected later. `--json` prints it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import functools
import hashlib
import os
import re
import reprlib
import stat
import sys
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import msgspec

from .errors import DiskFull, RecordError

R = TypeVar("R")

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""what bytes that are no JSON, or not that of a type, raise in msgspec and json"""

_MAX_BYTES = 64 << 20
"""no record is larger; a file that is, is not read"""
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
"""names of `write_bytes`' temporary files"""
_FULL_FSYNC_REFUSED = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL})
"""answers of network volumes, which have no drive to flush, to F_FULLFSYNC and to fsync of a folder"""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[R]) -> type[R]:
    """Class decorator of all stage records: a frozen, keyword-only dataclass with JSON in and out.

    Each has the same functions to compare, hash and show it: those that dataclasses compiles for each of hundreds of
    classes take a sixth of the time in which a task starts.
    """
    made = dataclasses.dataclass(frozen=True, kw_only=True, repr=False, eq=False)(cls)
    for name, function in (("__eq__", _same), ("__hash__", _hash), ("__repr__", _shown)):
        if name not in cls.__dict__:
            setattr(made, name, function)
    return made


@functools.cache
def _fields(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)


def _values(record: Any) -> tuple[Any, ...]:
    return tuple(getattr(record, field.name) for field in _fields(record.__class__) if field.compare)


def _same(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


@reprlib.recursive_repr()
def _shown(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in _fields(self.__class__) if field.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _encode_hook(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot encode {type(value).__name__}")


def _decode_hook(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"cannot decode {kind.__name__}")


def to_builtins(record: Any) -> Any:
    """A record as plain dicts, lists and strings."""
    return msgspec.to_builtins(record, enc_hook=_encode_hook)


def to_json(record: Any) -> str:
    """A record (or plain data) as stable, indented JSON with a final newline."""
    return msgspec.json.format(_encoded(record), indent=2).decode() + "\n"


def to_json_line(record: Any) -> str:
    """A record as JSON in one line."""
    return _encoded(record).decode() + "\n"


def _encoded(record: Any) -> bytes:
    """JSON, which is UTF-8: what is not in a file's name is replaced by U+FFFD."""
    try:
        return msgspec.json.encode(record, enc_hook=_encode_hook)
    except UnicodeEncodeError:
        return msgspec.json.encode(_utf8(to_builtins(record)))


def _utf8(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="surrogatepass").decode(errors="replace")
    if isinstance(value, dict):
        return {_utf8(key): _utf8(one) for key, one in value.items()}
    return [_utf8(one) for one in value] if isinstance(value, list | tuple) else value


def read(path: Path, kind: type[R], *, former_names: Mapping[str, str] | None = None, follow: bool = True) -> R:
    """Read a record. Raises `RecordError` when the file is missing, unreadable, truncated or of another shape.

    `former_names` maps field names of earlier versions to the current ones; a field that has both keeps the current
    one. A symbolic link is an error unless `follow` is set.
    """
    try:
        raw = read_bytes(path, follow=follow)
        if former_names:
            fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
            former = {former_names[name]: value for name, value in fields.items() if name in former_names}
            current = {name: value for name, value in fields.items() if name not in former_names}
            raw = msgspec.json.encode(former | current)
        return msgspec.json.decode(raw, type=kind, dec_hook=_decode_hook)
    except FileNotFoundError:
        raise RecordError(f"{path}: there is no {kind.__name__} record", hint="run the stage before it") from None
    except OSError as error:
        what = "a symbolic link" if error.errno == errno.ELOOP and not follow else error.strerror
        raise RecordError(f"{path}: {what}", hint="make it a readable file") from error
    except UNREADABLE as error:
        raise RecordError(
            f"{path}: not a {kind.__name__} record: {error}", hint="delete it and run its stage again"
        ) from error


def read_bytes(path: Path, *, follow: bool = True, limit: int = _MAX_BYTES) -> bytes:
    """The bytes of a regular file, if they are not more than `limit`. Raises `OSError`.

    A pipe or a device would block its reader for ever or have no end; a symbolic link is an error without `follow`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if found.st_size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read()


def write(path: Path, record: Any) -> None:
    """Write a record atomically: a reader sees the old file or the new one, never a part."""
    write_bytes(path, to_json(record).encode())


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644, group: int = -1) -> None:
    """Atomic write: temporary file beside `path`, flushed to the disk, renamed over it.

    The mode is independent of the umask. `group` is set by root alone. Raises `DiskFull`; the old content then remains.
    """
    make_folder(path.parent)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if os.geteuid() == 0 and group >= 0:
                os.fchown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), mode)
            flush_to_disk(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{path}: no space left on the disk", hint="free some space, then try again") from error
        raise
    flush_directory(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents with mode 0755, whatever the umask. Raises `OSError`."""
    missing = []
    for folder in (path, *path.parents):
        if os.path.lexists(folder):
            break
        missing.append(folder)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was faster
            folder.mkdir()
            folder.chmod(0o755)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def sweep(folder: Path, *names: str) -> None:
    """Delete what killed `write_bytes` left of the files `names` (patterns), which nobody may be writing now."""
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            found = _TEMPORARY.fullmatch(entry.name)
            if found and any(fnmatchcase(found[1], name) for name in names) and not entry.is_dir():
                entry.unlink()


def flush_to_disk(descriptor: int) -> None:
    """fsync that also flushes the drive's cache on macOS, which plain fsync does not."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in _FULL_FSYNC_REFUSED:
                raise
    os.fsync(descriptor)


def flush_directory(path: Path) -> None:
    """Make a rename or a new entry in `path` durable, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _FULL_FSYNC_REFUSED:
            raise
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
