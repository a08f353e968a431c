"""Reading a GGUF header front to back, within bounds on its length, on what is kept of it and on the work it takes."""

from __future__ import annotations

import struct
from typing import Any

from ...core.errors import ModelInvalid
from .origin import ModelOrigin

HEADER_LIMIT = 256 << 20
"""bytes; the largest vocabularies take about 20 MiB"""
KEPT_LIMIT = 96 << 20
"""bytes of Python objects that a header may leave in memory, as `Cursor.keep` counts them"""
_MAX_TEXTS = 1 << 21
"""texts in all arrays; the largest vocabularies have under a million with their merges"""
DAMAGED = "download the model again, or verify its checksum"


class Cursor:
    """A position in the file; reading past its end, or past a bound, raises `ModelInvalid`."""

    def __init__(self, source: ModelOrigin, window: int) -> None:
        self.at = 0
        self._source, self._window_size = source, window
        self._window, self._start = b"", 0
        self._kept = self._texts = 0

    def refuse(self, why: str, at: int | None = None, hint: str = DAMAGED) -> ModelInvalid:
        """The error for what is wrong at a byte, by default the next one."""
        return ModelInvalid(f"{self._source.name}: at byte {self.at if at is None else at}: {why}", hint=hint)

    def keep(self, size: int) -> None:
        """Count an object of `size` bytes that stays in memory."""
        self._kept += size
        if self._kept > KEPT_LIMIT:
            raise self.refuse(f"the header so far takes more memory than the limit of {KEPT_LIMIT >> 20} MiB")

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        self._fill(count)
        begin = self.at - self._start
        self.at += count
        return self._window[begin : begin + count]

    def skip(self, count: int) -> None:
        """Go on without reading."""
        self._require(count)
        self.at += count

    def scalar(self, layout: str) -> Any:
        """One number of `struct`'s format."""
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))[0]

    def string(self, limit: int) -> str:
        """A text, kept."""
        length = self.scalar("Q")
        if length > limit:
            raise self.refuse(f"a text of {length} bytes", at=self.at - 8)
        text = self.take(length).decode("utf-8", errors="replace")
        self.keep(text.__sizeof__())
        return text

    def skip_strings(self, count: int) -> None:
        """Skip an array of texts, within the window without a call for each."""
        self._texts += count
        if count * 8 > self._source.size - self.at or self._texts > _MAX_TEXTS:
            raise self.refuse(f"an array of {count} texts in a file of {self._source.size} bytes", at=self.at - 8)
        length_at = struct.Struct("<Q").unpack_from
        while count:
            self._fill(8)
            window, at, last = self._window, self.at - self._start, len(self._window) - 8
            while count and at <= last:
                at += 8 + length_at(window, at)[0]
                count -= 1
            over = self._start + at - self.at
            self._require(over)
            self.at += over

    def _require(self, count: int) -> None:
        if count > self._source.size - self.at:
            raise ModelInvalid(
                f"{self._source.name}: truncated: {count} bytes expected after byte {self.at}, "
                f"found {self._source.size - self.at}",
                hint=DAMAGED,
            )
        if self.at + count > HEADER_LIMIT:
            raise self.refuse(f"the header needs {count} more bytes, beyond the limit of {HEADER_LIMIT >> 20} MiB")

    def _fill(self, count: int) -> None:
        """Read at least `count` bytes from here on into the window."""
        self._require(count)
        if self._start <= self.at and self.at + count <= self._start + len(self._window):
            return
        length = min(max(count, self._window_size), self._source.size - self.at)
        self._window, self._start = self._source.read(self.at, length), self.at
