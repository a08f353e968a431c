"""Reads a launchd property list into the fields that the emulator uses."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...core.records import record
from .. import propertylist
from ..launchctl_codes import BAD_OWNERSHIP, INPUT_OUTPUT, session_type
from .refused import Refused

DEFAULT_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
DEFAULT_THROTTLE_S = 10.0
DEFAULT_EXIT_TIMEOUT_S = 5.0
_KEEP_ALIVE_CONDITIONS = ("SuccessfulExit", "Crashed")
_MODELLED = {
    "Label",
    "Program",
    "ProgramArguments",
    "RunAtLoad",
    "KeepAlive",
    "ThrottleInterval",
    "ExitTimeOut",
    "EnvironmentVariables",
    "StandardOutPath",
    "StandardErrorPath",
    "WorkingDirectory",
    "AbandonProcessGroup",
    "ProcessType",
    "Disabled",
    "UserName",
    "LimitLoadToSessionType",
}


@record
class JobSpec:
    """The contents of one plist. Times are seconds; an exit timeout of 0 means: never SIGKILL."""

    label: str
    program: str
    arguments: tuple[str, ...]
    """argv, its first word included"""
    run_at_load: bool
    keep_alive: bool
    restart_on_success: bool | None
    """KeepAlive/SuccessfulExit: restart after exit 0 (true) or after any other end (false)"""
    restart_on_crash: bool | None
    """KeepAlive/Crashed: restart after a signal (true) or after any other end (false)"""
    throttle_s: float
    exit_timeout_s: float
    environment: dict[str, str]
    stdout: str
    stderr: str
    directory: str
    abandon_group: bool
    process_type: str
    user: str
    disabled: bool
    session_types: tuple[str, ...]
    """LimitLoadToSessionType; empty if the plist does not say"""
    ignored: tuple[str, ...]
    """keys of the plist that the emulator does not model"""

    @property
    def starts_at_load(self) -> bool:
        """Conditions on the last exit imply a first run, see launchd.plist(5)."""
        return (
            self.run_at_load
            or self.keep_alive
            or self.restart_on_success is not None
            or self.restart_on_crash is not None
        )

    def restarts_after(self, status: int) -> bool:
        """Whether KeepAlive starts it again after `status`: an exit code, or minus a signal number."""
        return (
            self.keep_alive
            or (self.restart_on_success is not None and (status == 0) == self.restart_on_success)
            or (self.restart_on_crash is not None and (status < 0) == self.restart_on_crash)
        )

    def loads_in(self, session: str) -> bool:
        """Whether it may be loaded in a session of that type. An agent belongs to Aqua unless its plist says more.

        launchd.plist(5) has the key for agents only, so a plist without it is a daemon's just as well.
        """
        return session in (self.session_types or (session_type("gui"), session_type("system")))


def read(path: Path, uids: Collection[int]) -> tuple[JobSpec, bytes]:
    """Read the plist at `path`, which one of `uids` or root must own; also its bytes, which launchd keeps a copy of.

    Raises `Refused`: 122 when others can write the file, 5 when it is missing or not a job.
    """
    try:
        status, data = path.stat(), propertylist.content(path)
    except OSError as error:
        raise Refused(INPUT_OUTPUT, f"{path}: {error.strerror}") from error
    if status.st_uid not in {*uids, 0}:
        raise Refused(BAD_OWNERSHIP, f"{path}: owned by uid {status.st_uid}")
    if status.st_mode & 0o022:
        raise Refused(BAD_OWNERSHIP, f"{path}: mode {status.st_mode & 0o777:04o} is writable by group or others")
    return parse(data, str(path)), data


def parse(data: bytes, name: str) -> JobSpec:
    """Read a plist's bytes. Raises `Refused` (5) when it is not a plist, or not one of a job."""
    try:
        return _JobReader(propertylist.parsed(data), name).spec()
    except ValueError as error:
        raise Refused(INPUT_OUTPUT, f"{name}: {error}") from error


class _JobReader:
    def __init__(self, plist: Mapping[str, Any], name: str) -> None:
        self._plist = plist
        self._name = name

    def spec(self) -> JobSpec:
        arguments = self._value("ProgramArguments", list, [])
        if not all(isinstance(word, str) for word in arguments):
            raise self._wrong("ProgramArguments", "an array of strings")
        program = self._value("Program", str, "") or next(iter(arguments), "")
        label = self._value("Label", str, "")
        if not label or not program:
            raise Refused(INPUT_OUTPUT, f"{self._name}: needs Label, and Program or ProgramArguments")
        keep_alive, on_success, on_crash, unknown = self._keep_alive()
        environment = self._value("EnvironmentVariables", dict, {})
        return JobSpec(
            label=label,
            program=program,
            arguments=tuple(arguments) or (program,),
            run_at_load=self._value("RunAtLoad", bool, False),
            keep_alive=keep_alive,
            restart_on_success=on_success,
            restart_on_crash=on_crash,
            throttle_s=self._seconds("ThrottleInterval", DEFAULT_THROTTLE_S),
            exit_timeout_s=self._seconds("ExitTimeOut", DEFAULT_EXIT_TIMEOUT_S),
            environment={key: value for key, value in environment.items() if isinstance(value, str)},
            stdout=self._value("StandardOutPath", str, ""),
            stderr=self._value("StandardErrorPath", str, ""),
            directory=self._value("WorkingDirectory", str, "/"),
            abandon_group=self._value("AbandonProcessGroup", bool, False),
            process_type=self._value("ProcessType", str, "Standard"),
            user=self._value("UserName", str, ""),
            disabled=self._value("Disabled", bool, False),
            session_types=self._session_types(),
            ignored=(*sorted(set(self._plist) - _MODELLED), *unknown),
        )

    def _keep_alive(self) -> tuple[bool, bool | None, bool | None, tuple[str, ...]]:
        value = self._plist.get("KeepAlive", False)
        if isinstance(value, bool):
            return value, None, None, ()
        if not isinstance(value, dict):
            raise self._wrong("KeepAlive", "a boolean or a dictionary")
        conditions = [value.get(key) for key in _KEEP_ALIVE_CONDITIONS]
        if not all(condition is None or isinstance(condition, bool) for condition in conditions):
            raise self._wrong("KeepAlive", "a dictionary of booleans")
        unknown = tuple(f"KeepAlive/{key}" for key in sorted(set(value) - set(_KEEP_ALIVE_CONDITIONS)))
        return False, conditions[0], conditions[1], unknown

    def _session_types(self) -> tuple[str, ...]:
        value = self._plist.get("LimitLoadToSessionType", [])
        types = [value] if isinstance(value, str) else value
        if not isinstance(types, list) or not all(isinstance(one, str) for one in types):
            raise self._wrong("LimitLoadToSessionType", "a string or an array of strings")
        return tuple(types)

    def _seconds(self, key: str, default: float) -> float:
        value = self._plist.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= sys.float_info.max:
            raise self._wrong(key, "a number of seconds")
        return float(value)

    def _value(self, key: str, kind: type, default: Any) -> Any:
        value = self._plist.get(key, default)
        if not isinstance(value, kind):
            raise self._wrong(key, f"a {kind.__name__}")
        return value

    def _wrong(self, key: str, wanted: str) -> Refused:
        return Refused(INPUT_OUTPUT, f"{self._name}: {key} is not {wanted}")
