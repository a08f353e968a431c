"""Settings of an emulator for tests and rehearsals: one JSON file in its root folder."""

from __future__ import annotations

from pathlib import Path

from ...core import records
from ...core.records import record
from ..launchctl_codes import DOMAIN_ABSENT

ROOT_VARIABLE = "TURBOQUANT_LAUNCHD_ROOT"
FILE_NAME = "settings.json"


@record
class Settings:
    """Read at every command, so that a test can change it while the emulator runs. Times are seconds."""

    bootout_delay_s: float = 0.25
    """how long a label stays after its process has ended: the bootout race"""
    throttle_cap_s: float | None = None
    """upper bound of every job's ThrottleInterval, so that tests need not wait 10 s"""
    domains: tuple[str, ...] = ()
    """domains that exist, whoever is logged in; empty: those of the sessions, and system"""
    owner_pid: int = 0
    """the emulator stops everything and exits when this process is gone; 0: no such process"""
    idle_s: float = 1.0
    """how long it waits for another command once nothing is loaded"""
    root: bool = False
    """whether the caller counts as root, who acts in every domain; if not, it is an ordinary user, whatever its uid"""
    screen: bool = True
    """whether a user can log in at a screen; without one the Mac is headless"""
    kickstart_code: int = 0
    """what kickstart answers before the start; 0: it waits for that. launchd was seen to say 36 and 37"""
    absent_code: int = DOMAIN_ABSENT
    """what all verbs but bootstrap answer in an absent domain: 112 on older macOS, 125 on newer"""


def read(root: Path) -> Settings:
    """The settings of the emulator at `root`: the defaults if there is no file. Raises `RecordError`."""
    path = root / FILE_NAME
    return records.read(path, Settings) if path.exists() else Settings()


def write(root: Path, settings: Settings) -> None:
    """Write them; a running emulator uses them from its next command on."""
    records.write(root / FILE_NAME, settings)
