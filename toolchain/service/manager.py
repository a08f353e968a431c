"""The interface of a service manager: launchd, its emulator, systemd, or another one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from ..core.records import record
from .account import Account

_POLL_S = 0.05


@record
class ServiceState:
    """The state of a service. `runs` counts the starts since it was loaded."""

    loaded: bool
    pid: int = 0
    runs: int = 0
    last_end: str = ""
    """how the last process ended, in the manager's words; empty if none has"""
    program: str = ""
    """path of the program, as the manager states it; empty if it does not"""

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
    manager: str = ""
    """the manager, as deploy.service_manager names it; empty in a registration of an earlier version"""


@record
class Definition:
    """What a manager runs: `program`, with `log` for its stdout and stderr, restarted whenever it ends."""

    program: Path
    log: Path


class Manager(Protocol):
    """One service of one manager.

    Every method but `render` may raise `ManagerUnavailable`: the manager is unavailable and the service's state
    unknown. A refusal is another `ToolchainError`.
    """

    @property
    def kind(self) -> str:
        """The manager's own name: launchd, systemd."""

    @property
    def target(self) -> str:
        """The service as the manager's tools name it, for messages."""

    @property
    def registration(self) -> Registration:
        """Where the configuration puts the service."""

    @property
    def account(self) -> Account | None:
        """The account that the service runs as; None when root would have to guess it."""

    @property
    def owner(self) -> Account:
        """To whom its prefix and its definition belong."""

    @property
    def caution(self) -> str:
        """What whoever installs the service there must know; empty if nothing."""

    def check(self) -> None:
        """Raises `ConfigError` when a definition cannot be written there, `ManagerRefused` for one without effect."""

    def require_rights(self) -> None:
        """Raises `ConfigError` when the caller may not change the service, which everybody may look at."""

    def preflight(self) -> None:
        """Load a throwaway service in the same way, and remove it. Raises `PreflightRefused`; needs no more than 2 s.

        What a killed preflight left behind is removed first.
        """

    def sweep(self) -> None:
        """Remove what a killed preflight left behind."""

    def inspect(self) -> ServiceState:
        """The current state of the service."""

    def instances(self) -> tuple[Instance, ...]:
        """Every place of this manager where a service of this label is loaded now; this one first.

        Raises `ManagerUnavailable` only when none of the places can be asked.
        """

    def definitions(self) -> tuple[Path, ...]:
        """Every definition file of this label that the manager would load by itself, at a login or a start."""

    def runs(self, file: Path) -> str:
        """The program that a definition file names; empty if there is no file, or it does not say."""

    def render(self, definition: Definition) -> bytes:
        """The file for a definition. The same definition gives the same bytes. Raises `ConfigError`."""

    def describe(self, data: bytes) -> dict[str, str]:
        """What a definition's file says, by dotted key; empty if it is none."""

    def user_of(self, data: bytes) -> str:
        """The account that a definition's file names; empty if it names none."""

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

    def doubt(self, registration: Registration, program: Path) -> str:
        """Why a registration that a file states cannot be a service of this user that runs `program`.

        Empty if it can: then it may be adopted, unloaded and deleted.
        """

    def find(self, program: Path) -> Registration | None:
        """Where a service that runs `program` is registered, whatever its label; None if it is nowhere."""

    def adopt(self, registration: Registration) -> Manager:
        """The same manager's service with this registration; others may have installed it."""


@record
class Instance:
    """A place where a service is loaded."""

    manager: Manager
    state: ServiceState

    @property
    def place(self) -> tuple[str, str]:
        """What tells it from every other place."""
        return self.manager.registration.manager, self.manager.target


def has_ended(manager: Manager, before: ServiceState, within_s: float) -> bool:
    """Wait until the process of an earlier state has ended, for `within_s` seconds at most. False if it still runs."""
    deadline = time.monotonic() + within_s
    while (state := manager.inspect()).pid == before.pid and state.runs == before.runs:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
