"""The interface of a service manager: launchd, its emulator, or another one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..core.records import record


@record
class ServiceState:
    """The state of a service. `runs` counts the starts since it was loaded."""

    loaded: bool
    pid: int = 0
    runs: int = 0
    last_end: str = ""
    """how the last process ended, in the manager's words; empty if none has"""

    @property
    def running(self) -> bool:
        """Whether a process is running."""
        return self.pid > 0


@record
class Registration:
    """Where a manager has registered a service, so that it is found again after the configuration has changed."""

    label: str
    domain: str
    """the manager's domain in which it is loaded; empty if there are no domains"""
    file: str
    """path of its definition"""


@record
class Definition:
    """What a manager runs: `program`, with `log` for its stdout and stderr, restarted whenever it ends."""

    program: Path
    log: Path


class Manager(Protocol):
    """One service of one manager.

    Every method but `render` may raise `DomainUnavailable`: the manager is unavailable and the service's state
    unknown. A refusal is another `ToolchainError`.
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
        """The current state of the service."""

    def render(self, definition: Definition) -> bytes:
        """The file for a definition. The same definition gives the same bytes. Raises `ConfigError`."""

    def describe(self, data: bytes) -> dict[str, str]:
        """What a definition's file says, by dotted key; empty if it is none."""

    def install(self, definition: Definition) -> None:
        """Write the file for a definition. The loaded definition is unchanged until `reload`."""

    def digest(self) -> str:
        """SHA-256 of the installed file, in hex; empty when there is none."""

    def reload(self) -> None:
        """Replace the loaded definition by the installed one, and start the program."""

    def restart(self) -> bool:
        """Ask the running program to end (SIGTERM), and start it again; load the service first if it is not loaded.

        Returns whether it ended by itself: False when it had to be killed. True if none was running.
        """

    def unload(self) -> None:
        """Stop the service and forget it. Returns when its program has ended. Harmless when it is not loaded."""

    def delete(self) -> None:
        """Delete the installed file."""

    def adopt(self, registration: Registration) -> Manager:
        """The same manager's service with this registration; others may have installed it."""
