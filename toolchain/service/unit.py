"""The interface of a program that a manager keeps running: Ollama, or another server of a release."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ..core.config import DeployConfig
from ..core.records import record
from ..stages import Release
from . import servicelog


@record
class Competitor:
    """A service of others that uses the same port, as its manager knows it."""

    manager: str
    label: str
    name: str
    port: int
    remedy: str
    """what to do about it"""
    program: str = ""
    """part of its program's path that gives it away where no manager knows it; empty if nothing does"""


@record
class Variables:
    """What is known of the variables that a program reads."""

    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """variables that the unit or the program itself sets: the setting to use instead, or who sets it"""
    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """the program's own variables, each with the kind of its value, as in `units.further`"""
    prefix: str = ""
    """how the names of its own variables begin; a name that begins so and is not in `kinds` may be a mistake"""
    paths: tuple[str, ...] = ()
    """variables that name what must exist before the program starts"""


@record
class StartedUnit:
    """A release that was started as the service."""

    release: Release
    environment: Mapping[str, str]
    """the variables that it was started with"""
    log: Path
    log_offset: int
    """size of the log when it was started, in bytes"""
    temporary: Path | None = None
    """folder for temporary folders; None: the system's"""

    def logged(self, offset: int | None = None) -> str:
        """What was logged since the start, or since another size."""
        return servicelog.since(self.log, self.log_offset if offset is None else offset).decode(errors="replace")

    def log_size(self) -> int:
        """The log's present size, for `logged`."""
        return self.log.stat().st_size if self.log.exists() else 0


@record
class UnitProof:
    """The proof that a unit does what was configured."""

    lines: tuple[str, ...]
    """lines of its log, verbatim"""
    unproven: str = ""
    """what remains unproven; empty if all is proven"""


class Unit(Protocol):
    """A program of a release that serves on a port. It gets only the variables of its environment file."""

    @property
    def name(self) -> str:
        """Its usual name."""

    @property
    def program(self) -> tuple[str, ...]:
        """Its command: a path in the release directory, then its arguments."""

    @property
    def log(self) -> str:
        """Name of its log file."""

    @property
    def competitors(self) -> tuple[Competitor, ...]:
        """Services of others that are known to use its port."""

    @property
    def variables(self) -> Variables:
        """What is known of the variables that it reads."""

    def environment(self, release: Release, config: DeployConfig) -> dict[str, str]:
        """The variables that it is started with: its own, and those of deploy.environment.

        Raises `ConfigError` for what the release does not support, and for further variables that are refused.
        """

    def version(self, release: Release) -> str:
        """The value of `ready` that identifies `release`."""

    def url(self, environment: Mapping[str, str]) -> str:
        """Its URL on this machine when started with `environment`."""

    def ready(self, environment: Mapping[str, str]) -> str:
        """The version that answers now; empty if none does. Takes a few seconds at most."""

    def proof(self, started: StartedUnit, timeout_s: float) -> UnitProof:
        """Generate text, and compare its log with the configuration. Raises `Unhealthy`; `timeout_s` bounds a call."""
