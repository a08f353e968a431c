"""What every task, and every stage behind it, works with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from .config import Config
from .console import Console


@dataclasses.dataclass(frozen=True)
class Run:
    """What a task works with."""

    config: Config
    console: Console

    @property
    def workspace(self) -> Path:
        """Folder for everything that a run makes before it is deployed."""
        return Path(self.config.workspace).expanduser().absolute()
