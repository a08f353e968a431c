"""What a test of the matrix gets: the plan, the kept cells and the two sides; and its progress."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ..core.config import Config
from ..core.console import Console, Step
from ..host.conditions import Observer
from ..stages import CacheType
from .endpoint import Endpoint
from .guard import Pressure
from .plan import Plan, Side
from .sides import Sides
from .store import Store
from .voids import Looks

R = TypeVar("R")


class Progress:
    """Counts the cells of one test, and estimates the time that is left from those that this run measured."""

    def __init__(self, step: Step, total: int) -> None:
        self._step, self._total, self._done, self._measured = step, total, 0, 0
        self._started = time.monotonic()

    def advance(self, detail: str, *, measured: bool = True) -> None:
        """A further cell is done."""
        self._done += 1
        self._measured += measured
        self._total = max(self._total, self._done)  # a test may take more tries than it announced
        cells = self._total - self._done
        left = (time.monotonic() - self._started) / max(self._measured, 1) * cells
        about = f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"
        self._step.update(self._done, self._total, detail + (about if self._measured > 1 and cells else ""))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """The means of a test. `added` are the cache types that the release's series adds, `accepted` the kinds of voids
    (`voids.KINDS`) that do not count."""

    plan: Plan
    store: Store
    sides: Sides
    config: Config
    console: Console
    workspace: Path
    added: tuple[CacheType, ...]
    observer: Looks = dataclasses.field(default_factory=Observer)
    accepted: frozenset[str] = frozenset()
    pressure: Pressure | None = None
    """what tells of memory pressure; None: the machine itself"""

    def kept(self, key: str, kind: type[R], measure: Callable[[], R]) -> R:
        """A cell: measured now, unless an earlier run kept it."""
        return self.store.kept(key, kind, measure)

    def at(self, side: Side, context: int = 0) -> Endpoint:
        """A side's server with this context in tokens (0: the working context); started where it does not run yet."""
        return self.sides.at(side, context or self.plan.working_context)

    @contextmanager
    def progress(self, title: str, cells: int) -> Iterator[Progress]:
        """Shows the progress of so many cells."""
        with self.console.step(title) as step:
            yield Progress(step, cells)
