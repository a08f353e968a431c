"""The interface of a program that a manager keeps running: Ollama, or another server of a release."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from ..core.config import DeployConfig
from ..core.deadline import Deadline
from ..core.errors import Unhealthy
from ..core.records import record
from ..stages import Release

CALL_TIMEOUT_S = 5.0
"""for one question to a server that does not take it any work"""
_MOST_BYTES = 16 << 20
"""of a log that are read at once"""


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
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """variables that a service must not have: why"""


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
        """What was logged since the start, or since another size; of a log that was rotated meanwhile, all of it.

        Raises `Unhealthy` when there is no log, or one that cannot be read.
        """
        with self._opened() as file:
            start = self.log_offset if offset is None else offset
            file.seek(start if start <= os.fstat(file.fileno()).st_size else 0)
            return file.read(_MOST_BYTES).decode(errors="replace")

    def log_size(self) -> int:
        """The log's present size, for `logged`. Raises `Unhealthy` as it does."""
        with self._opened() as file:
            return os.fstat(file.fileno()).st_size

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        hint = "the release must write to the stdout and stderr that it is started with, and leave the file alone"
        try:
            plain = os.O_NOFOLLOW if os.geteuid() == 0 else 0  # of a daemon, its user writes the folder
            descriptor = os.open(self.log, os.O_RDONLY | os.O_NONBLOCK | plain)  # a pipe in its place must not hold us
        except OSError as error:
            raise Unhealthy(f"{self.log}: the service's log cannot be read: {error.strerror}", hint=hint) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Unhealthy(f"{self.log}: the service's log is no file", hint=hint)
        with os.fdopen(descriptor, "rb") as file:
            yield file


@record
class UnitProof:
    """The proof that a unit does what was configured."""

    lines: tuple[str, ...]
    """lines of its log, verbatim"""
    unproven: str = ""
    """what remains unproven, though nothing contradicts it; empty if all is proven"""


@record
class ServedModel:
    """A model by the name that clients choose it by, and its files."""

    name: str
    file: Path
    projector: Path | None = None
    """what turns images into its tokens"""
    lost: tuple[str, ...] = ()
    """what Ollama does for it and llama-server does not, a sentence each"""


@record
class Served:
    """What a program is given besides the settings, if it takes its models from them."""

    models: tuple[ServedModel, ...] = ()
    keys: tuple[str, ...] = ()
    """any of which a client must send; none: nobody is asked"""
    folder: Path | None = None
    """where the program finds the files that it is given besides its environment; None: in no place yet"""
    most: int = 1
    """models in memory at a time"""


NOTHING = Served()


class Unit(Protocol):
    """A program of a release that serves on a port. It gets only the variables of its environment file."""

    @property
    def name(self) -> str:
        """Its usual name."""

    @property
    def program(self) -> tuple[str, ...]:
        """Its command: a path in the release directory, then its arguments."""

    @property
    def reminded_after_s(self) -> float:
        """Seconds after SIGTERM until a second one, on which it ends at once; 0: it gets one, and ends by itself."""

    @property
    def competitors(self) -> tuple[Competitor, ...]:
        """Services of others that are known to use its port."""

    @property
    def variables(self) -> Variables:
        """What is known of the variables that it reads."""

    def environment(self, release: Release, config: DeployConfig, served: Served = NOTHING) -> dict[str, str]:
        """The variables that it is started with: its own, and those of deploy.environment.

        Raises `ConfigError` for what the release does not support, and for further variables that are refused.
        """

    def files(self, served: Served) -> Mapping[Path, str]:
        """Further files that its environment names, with their text. Another text has another path."""

    def version(self, release: Release) -> str:
        """The value of `ready` that identifies `release`."""

    def url(self, environment: Mapping[str, str]) -> str:
        """Its URL on this machine when started with `environment`."""

    def ready(self, environment: Mapping[str, str], timeout_s: float = CALL_TIMEOUT_S) -> str:
        """The version that answers within `timeout_s`; empty if none does."""

    def runners(self, environment: Mapping[str, str], deadline: Deadline) -> int:
        """How many processes of its own it has for models in memory. Raises `ServerFailed`."""

    def proof(self, started: StartedUnit, deadline: Deadline) -> UnitProof:
        """Generate text, and compare its log with the configuration.

        Raises `Unhealthy`, also when `deadline` passes, and when the log does not prove the configured cache type; only
        f16, which is everybody's default, may stay unproven.
        """
