"""The log of a service: its last lines and its further ones, across the files that a rotation leaves.

A rotation copies `log` to `log.1`, renames older ones to `log.2` and so on, and empties `log`. `log.rotating` exists
meanwhile.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

LINE_BYTES = 16 * 1024
"""of a longer line the beginning is shown"""
_BLOCK = 256 * 1024
_STALE_S = 10.0
"""age of `log.rotating` from which its rotation counts as killed"""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

Opener = Callable[[Path], IO[bytes]]
"""opens one of the files to read it, and may refuse it: whoever writes there could have it lead elsewhere"""


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def rotated(log: Path) -> tuple[Path, ...]:
    """The log's earlier files, the newest first."""
    found: list[Path] = []
    while (path := log.with_name(f"{log.name}.{len(found) + 1}")).is_file():
        found.append(path)
    return tuple(found)


def tail(log: Path, count: int, *, end: int | None = None, opened: Opener = _opened) -> tuple[str, ...]:
    """The last `count` lines, of `log` itself those in its first `end` bytes.

    Reads the files from their ends, so that their size does not matter. Raises what `opened` does, except for
    `FileNotFoundError`.
    """
    lines: list[str] = []
    for path in (log, *rotated(log)):
        if (missing := count - len(lines)) <= 0:
            break
        try:
            with opened(path) as file:
                lines = [*_last_lines(file, missing, end if path == log else None), *lines]
        except FileNotFoundError:
            continue
    return tuple(lines)


def clean(line: str) -> str:
    """A line as a terminal may show it: control characters, which could move its cursor, as escapes."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), line)


class Follower:
    """Further lines of a log from its present end on, through rotations."""

    def __init__(self, log: Path, opened: Opener = _opened) -> None:
        self._log, self._opened = log, opened
        self._newest = _inode(log.with_name(f"{log.name}.1"))
        self._offset = self.begin = log.stat().st_size if log.exists() else 0
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """The lines that were completed since the last call. Raises as `tail` does."""
        if self._is_rotating():
            return
        for path, offset in self._sources():
            for data in self._blocks(path, offset):
                *whole, self._rest = (self._rest + data).split(b"\n")
                self._rest = self._rest[: LINE_BYTES + 1]  # of a long line the end is passed over
                yield from map(_shown, whole)
                if path == self._log:
                    self._offset += len(data)

    def _sources(self) -> list[tuple[Path, int]]:
        """The files with what is new, the oldest first, each with where that begins."""
        earlier, offset, before = rotated(self._log), self._offset, self._newest
        newest = _inode(earlier[0]) if earlier else 0
        size = self._log.stat().st_size if self._log.exists() else 0
        sources: list[tuple[Path, int]] = []
        if newest != before:
            inodes = [_inode(path) for path in earlier]
            fresh = earlier[: inodes.index(before)] if before in inodes else earlier
            sources = [(path, offset if number == 0 else 0) for number, path in enumerate(reversed(fresh))]
        if newest != before or size < offset:  # emptied by hand, too
            self._newest, self._offset = newest, 0
        return [*sources, (self._log, self._offset)]

    def _blocks(self, path: Path, offset: int) -> Iterator[bytes]:
        try:
            with self._opened(path) as file:
                file.seek(offset)
                while data := file.read(_BLOCK):
                    yield data
        except FileNotFoundError:
            return

    def _is_rotating(self) -> bool:
        try:
            begun = self._log.with_name(f"{self._log.name}.rotating").stat().st_mtime
        except OSError:
            return False
        return time.time() - begun < _STALE_S


def _last_lines(file: IO[bytes], count: int, end: int | None) -> list[str]:
    size = file.seek(0, os.SEEK_END)
    position = size = size if end is None else min(size, end)
    starts: list[int] = []  # of lines, the last one first
    while position > 0 and len(starts) < count:
        begin = max(0, position - _BLOCK)
        file.seek(begin)
        block = file.read(position - begin)
        at = len(block)
        while len(starts) < count and (at := block.rfind(b"\n", 0, at)) >= 0:
            if begin + at + 1 < size:
                starts.append(begin + at + 1)
        position = begin
    if len(starts) < count and size:
        starts.append(0)
    lines = []
    for start, after in zip(starts, [size, *starts], strict=False):
        file.seek(start)
        lines.append(_shown(file.read(min(after - start, LINE_BYTES + 2)).removesuffix(b"\n"), after - start))
    return lines[::-1]


def _shown(line: bytes, length: int = 0) -> str:
    """A line as text, of a long one the beginning."""
    if len(line) <= LINE_BYTES:
        return line.decode(errors="replace").removesuffix("\r")
    size = f" of {length} bytes" if length > len(line) else ""
    return f"{line[:LINE_BYTES].decode(errors='replace')} [... a long line{size}]"


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
