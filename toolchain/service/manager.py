"""What deploy needs of a service manager: launchd, its emulator, or another one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..core.records import record


@record
class ServiceState:
    """What the manager says of a service. `runs` counts the starts since it was loaded."""

    loaded: bool
    pid: int = 0
    runs: int = 0
    last_end: str = ""
    """how the last process ended, in the manager's words; empty when none has"""

    @property
    def running(self) -> bool:
        """A process is up right now."""
        return self.pid > 0


@record
class Registration:
    """Where a manager has a service, so that it is found again when the configuration names another place."""

    label: str
    domain: str
    """the part of the manager that it is loaded in; empty where there are no parts"""
    file: str
    """path of its definition"""


@record
class Definition:
    """What a manager is told: start `program`, with `log` for its stdout and stderr, and again whenever it ends."""

    program: Path
    log: Path


class Manager(Protocol):
    """One service in the care of one manager.

    Every method but `render` may raise `DomainUnavailable`: the manager cannot be asked, so nobody can tell how the
    service is. A refusal is another `ToolchainError`.
    """

    @property
    def kind(self) -> str:
        """The manager's own name: launchd."""

    @property
    def target(self) -> str:
        """The service as the manager's tools name it, for messages."""

    @property
    def registration(self) -> Registration:
        """Where the configuration puts the service."""

    @property
    def user(self) -> str:
        """The account that the service runs as; empty when it is the caller's."""

    def check(self) -> None:
        """Raises `ConfigError` when a definition cannot be written there."""

    def inspect(self) -> ServiceState:
        """How the service is right now."""

    def render(self, definition: Definition) -> bytes:
        """The file for a definition. The same definition gives the same bytes. Raises `ConfigError`."""

    def install(self, definition: Definition) -> None:
        """Write the file for a definition. What is loaded stays as it is until `reload`."""

    def digest(self) -> str:
        """SHA-256 of the installed file, in hex; empty when there is none."""

    def reload(self) -> None:
        """Load the installed definition in place of the loaded one, and start the program."""

    def restart(self) -> None:
        """End the running program and start another; load the service first where it is unknown."""

    def unload(self) -> None:
        """Stop the service and forget it. Returns when its program has ended. Harmless when it is not loaded."""

    def delete(self) -> None:
        """Delete the installed file."""

    def adopt(self, registration: Registration) -> Manager:
        """The service that the same manager has there, which may be one that others installed."""
