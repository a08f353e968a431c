"""Sizes in the metadata of one architecture, checked where they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.errors import ModelInvalid

MAX_COUNT = 1 << 20
"""far above any width or count of a real model"""


class Keys:
    """The metadata below an architecture's name."""

    def __init__(self, file: str, name: str, metadata: Mapping[str, Any]) -> None:
        self.file = file
        self._prefix = f"{name}."
        self._metadata = metadata

    def own(self) -> list[str]:
        """The full names."""
        return [key for key in self._metadata if key.startswith(self._prefix)]

    def has(self, key: str) -> bool:
        """Whether the file has it."""
        return self._prefix + key in self._metadata

    def is_number(self, key: str) -> bool:
        """Whether it is one number, and no list."""
        return isinstance(self._metadata.get(self._prefix + key), int)

    def count(self, key: str, default: int | None = None, *, low: int = 0, high: int = MAX_COUNT) -> int:
        """A size. Raises `ModelInvalid` when it is missing without a default, or is not a size."""
        if not self.has(key) and default is not None:
            return default
        return self._checked(key, self._metadata.get(self._prefix + key), low, high)

    def each(self, key: str, layers: int, default: int | None) -> tuple[int, ...]:
        """A size for each layer, of a list or one number for all."""
        value = self._metadata.get(self._prefix + key)
        if isinstance(value, tuple):
            if len(value) != layers:
                raise ModelInvalid(f"{self.file}: {self._prefix}{key} lists {len(value)} layers, not {layers}")
            return tuple(self._checked(key, one, 0, MAX_COUNT) for one in value)
        return (self.count(key, default),) * layers

    def _checked(self, key: str, value: Any, low: int, high: int) -> int:
        if not isinstance(value, int) or not low <= value <= high:
            said = "is missing" if value is None else f"is {value!r}, which is not a valid size"
            raise ModelInvalid(f"{self.file}: {self._prefix}{key} {said}")
        return int(value)
