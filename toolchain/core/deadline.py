"""A point in time by which something must be finished, shared by all calls that belong to it."""

from __future__ import annotations

import time


class Deadline:
    """Lies `seconds` after its creation, on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then; 0 once it has passed."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether it has passed."""
        return self.left == 0.0

    def within(self, seconds: float) -> Deadline:
        """A deadline in `seconds`, or this one if it is earlier."""
        return self if self.left < seconds else Deadline(seconds)
