"""What deploy needs of a program that a manager keeps running: Ollama, or another server of a release."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ..core.config import DeployConfig
from ..core.records import record
from ..stages import Release


@record
class Competitor:
    """Another service that would take the same port, as a manager of that kind knows it."""

    manager: str
    label: str
    name: str
    port: int
    remedy: str
    """what to do about it"""


@record
class StartedUnit:
    """A release that was started as the service."""

    release: Release
    environment: Mapping[str, str]
    """the variables that it was started with"""
    log: Path
    log_offset: int
    """size of the log when it was started, in bytes"""

    def logged(self, offset: int | None = None) -> str:
        """What the log gained since the start, or since another size."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(self.log_offset if offset is None else offset)
            return file.read().decode(errors="replace")

    def log_size(self) -> int:
        """The log's present size, for `logged`."""
        return self.log.stat().st_size if self.log.exists() else 0


@record
class UnitProof:
    """What shows that a unit does what it was asked for."""

    lines: tuple[str, ...]
    """of its log, as they stand"""
    unproven: str = ""
    """what nothing shows; empty when all is proven"""


class Unit(Protocol):
    """A program of a release that serves on a port. It gets nothing but the variables of its environment file."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def program(self) -> tuple[str, ...]:
        """Its command: a path in the release directory, then its arguments."""

    @property
    def log(self) -> str:
        """Name of its log file."""

    @property
    def competitors(self) -> tuple[Competitor, ...]:
        """Services of others that are known to take its port."""

    def environment(self, release: Release, config: DeployConfig) -> dict[str, str]:
        """The variables that it is started with. Raises `ConfigError` for what the release cannot serve."""

    def version(self, release: Release) -> str:
        """What `ready` returns while `release` runs, and no other program."""

    def url(self, environment: Mapping[str, str]) -> str:
        """Where it answers when it is started with `environment`, as seen from this machine."""

    def ready(self, environment: Mapping[str, str]) -> str:
        """The version that answers right now; empty when none does, or not yet. Takes some seconds at most."""

    def proof(self, started: StartedUnit, timeout_s: float) -> UnitProof:
        """Have it generate, and hold its log against what was asked. Raises `Unhealthy`; `timeout_s` bounds a call."""
