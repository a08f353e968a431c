"""The context of every task and stage: settings and console."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from . import folders
from .config import Config
from .console import Console
from .errors import ToolchainError


@runtime_checkable
class Fallible(Protocol):
    """A record that may report a failure."""

    def failure(self) -> ToolchainError | None:
        """The error to raise after the record is printed; None on success."""


@runtime_checkable
class Coded(Protocol):
    """A record whose exit code reports a finding that is not an error."""

    @property
    def exit_code(self) -> int:
        """0 when nothing was found."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Settings and console of a task."""

    config: Config
    console: Console

    @property
    def workspace(self) -> Path:
        """Folder for everything that a run makes before deployment. Raises `FolderUnusable`."""
        return folders.workspace(self.config)

    def records_of(self, release: str) -> Path:
        """The folder with the records of a release, by its id."""
        return self.workspace / "runs" / release

    def output(self, named: str, otherwise: str) -> Path:
        """The folder that `--out` names, else this one in the workspace."""
        return Path(named).expanduser().absolute() if named else self.workspace / otherwise

    def chosen(self, setting: str) -> bool:
        """Whether somebody set it, as `deploy.port`: it is not the default."""
        return self.config.origins.get(setting, "default") != "default"

    def with_deploy(self, name: str, value: str, origin: str) -> Run:
        """The run with another value of a setting of `deploy`, and where it comes from."""
        changed: dict[str, Any] = {name: value}
        deploy = dataclasses.replace(self.config.deploy, **changed)
        origins = {**self.config.origins, f"deploy.{name}": origin}
        return dataclasses.replace(self, config=dataclasses.replace(self.config, deploy=deploy, origins=origins))

    def finish(self, record: Any, failure: ToolchainError | None = None) -> None:
        """Print the task's record, then raise `failure`, the record's own, or `SystemExit` with its exit code."""
        self.console.result(record)
        if failure is None and isinstance(record, Fallible):
            failure = record.failure()
        if failure is not None:
            raise failure
        if isinstance(record, Coded) and record.exit_code:
            raise SystemExit(record.exit_code)
