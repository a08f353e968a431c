"""What every task, and every stage behind it, works with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .config import Config
from .console import Console
from .errors import ToolchainError


@runtime_checkable
class Fallible(Protocol):
    """A record that may say that something is not as it should be."""

    def failure(self) -> ToolchainError | None:
        """The error that the run ends with once the record was printed; None where all is well."""


@runtime_checkable
class Coded(Protocol):
    """A record whose exit code says what was found, without an error."""

    @property
    def exit_code(self) -> int:
        """0 where nothing was found."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a task works with."""

    config: Config
    console: Console

    @property
    def workspace(self) -> Path:
        """Folder for everything that a run makes before it is deployed."""
        return Path(self.config.workspace).expanduser().absolute()

    def finish(self, record: Any, failure: ToolchainError | None = None) -> None:
        """Print the task's record, then end as it says: raises `failure` or the record's own, or `SystemExit`."""
        self.console.result(record)
        if failure is None and isinstance(record, Fallible):
            failure = record.failure()
        if failure is not None:
            raise failure
        if isinstance(record, Coded) and record.exit_code:
            raise SystemExit(record.exit_code)
