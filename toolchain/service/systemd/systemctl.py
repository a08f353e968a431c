"""Calls of systemctl for one unit, of the system's systemd or of a user's."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...core import process
from ...core.errors import ManagerRefused, ManagerUnavailable, MissingTool
from .. import account
from ..account import Account
from ..manager import ServiceState
from . import unitfile

BOOTED = Path("/run/systemd/system")
"""exists exactly where systemd is PID 1, see sd_booted(3)"""
_CALL_TIMEOUT_S = 60.0
_PROPERTIES = (
    "LoadState",
    "LoadError",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "NRestarts",
    "ExecMainStartTimestampMonotonic",
    "ExecMainCode",
    "ExecMainStatus",
    "ExecStart",
    "FragmentPath",
    "DropInPaths",
    "NeedDaemonReload",
)
_KILLED = ("2", "3")
"""ExecMainCode of a process that a signal ended: CLD_KILLED and CLD_DUMPED of sigaction(2)"""


@dataclass(frozen=True, kw_only=True)
class Systemctl:
    """`command` is systemctl's; `domain` is system or user/UID."""

    command: tuple[str, ...]
    domain: str
    label: str
    file: Path
    """of the unit"""
    account: Account | None

    @property
    def unit(self) -> str:
        """The name of its unit."""
        return f"{self.label}{unitfile.SUFFIX}"

    @property
    def target(self) -> str:
        """The unit with its domain: user/1000/label.service."""
        return f"{self.domain}/{self.unit}"

    @property
    def words(self) -> str:
        """systemctl as a person calls it for this domain."""
        return "systemctl" if self.domain == account.SYSTEM else "systemctl --user"

    @property
    def runtime(self) -> Path:
        """The folder with the sockets of the user's systemd."""
        uid = int(self.domain.partition("/")[2] or os.getuid())
        stated = os.environ.get("XDG_RUNTIME_DIR", "") if uid == os.getuid() else ""
        return Path(stated or f"/run/user/{uid}")

    def look(self) -> dict[str, str]:
        """Properties of the unit, also of one that does not exist. Raises `ManagerUnavailable`."""
        done = self.call("show", f"--property={','.join(_PROPERTIES)}", self.unit)
        if done.returncode:
            raise self.unavailable(done.error_text)
        lines = (line.partition("=") for line in done.text.splitlines())
        found = {key: value for key, _, value in lines if key in _PROPERTIES}
        if not (found.get("LoadState") and found.get("ActiveState")):  # which systemd states of every unit
            raise self.unavailable(f"`{self.words} show {self.unit}` does not state what it was asked for")
        return found

    def call(self, *words: str) -> process.Captured:
        """Run it, as the user whose systemd it is, else as root. Raises `ManagerUnavailable` where it cannot be run."""
        scope = "--system" if self.domain == account.SYSTEM else "--user"
        given = {"LC_ALL": "C", "XDG_RUNTIME_DIR": str(self.runtime)}
        try:
            with self._rights():
                return process.capture(
                    (*self.command, scope, "--no-ask-password", *words),
                    env=given,
                    check=False,
                    timeout=_CALL_TIMEOUT_S,
                    failure=ManagerUnavailable,
                    what=f"systemctl {words[0]}",
                )
        except (MissingTool, ManagerUnavailable) as error:  # also one that hangs
            raise self.unavailable(error.message) from error

    def must(self, *words: str) -> None:
        """Run it. Raises `ManagerRefused` when it fails."""
        done = self.call(*words)
        if done.returncode:
            raise self.refused(done, words)

    def refused(self, done: process.Captured, words: tuple[str, ...]) -> ManagerRefused:
        """The error for a call that failed, with systemd's words. Raises `ManagerUnavailable`."""
        fields = self.look()  # raises where systemd itself is what is missing
        state = f"{fields.get('LoadState')}, {fields.get('ActiveState')}, last result: {fields.get('Result')}"
        said = "".join(f"\n    {line}" for line in done.error_text.splitlines())
        journal = "journalctl -u" if self.domain == account.SYSTEM else "journalctl --user -u"
        return ManagerRefused(
            f"systemctl {' '.join(words)} ended with {done.returncode} ({self.target}: {state}){said}",
            hint=f"`{self.words} status {self.unit}` and `{journal} {self.unit}`",
            code=done.returncode,
        )

    def unavailable(self, said: str) -> ManagerUnavailable:
        """The error for a systemd that does not answer: what is missing, and what to try."""
        return ManagerUnavailable(
            f"{self.target}: the state of the service is unknown: {self._missing()}{_told(said)}", hint=self._remedy()
        )

    def _missing(self) -> str:
        if shutil.which(self.command[0]) is None:
            return f"{self.command[0]} is not installed"
        if self.domain == account.SYSTEM:
            return "the system's systemd does not answer" if BOOTED.is_dir() else lacks()
        uid = self.domain.partition("/")[2]
        name = account.name_of(int(uid))
        if not self.runtime.is_dir():
            return f"{name} has no user session: {self.runtime} does not exist"
        return f"no systemd of {name} answers in {self.runtime}"

    def _remedy(self) -> str:
        if shutil.which(self.command[0]) is None or (self.domain == account.SYSTEM and not BOOTED.is_dir()):
            return "set deploy.service_manager to another manager on this machine"
        if self.domain == account.SYSTEM:
            return "`systemctl show --property=SystemState` shows whether it answers at all"
        uid = self.domain.partition("/")[2]
        name, runtime = account.name_of(int(uid)), f"/run/user/{uid}"
        stated = "" if str(self.runtime) == runtime else f"XDG_RUNTIME_DIR={runtime}, or "
        return f"{stated}`sudo loginctl enable-linger {name}`, or with sudo: --set deploy.domain=system"

    @contextmanager
    def _rights(self) -> Iterator[None]:
        with account.as_root():
            if self.domain == account.SYSTEM or self.account is None:
                yield
                return
            with account.acting(self.account):
                yield


def lacks() -> str:
    """Why systemd cannot be the manager on this machine; empty if it can."""
    if shutil.which("systemctl") is None:
        return "systemctl is not installed"
    return "" if BOOTED.is_dir() else f"systemd is not PID 1 of this machine: {BOOTED} does not exist"


def state_of(fields: dict[str, str]) -> ServiceState:
    """What the properties of `look` say. A unit that was stopped and has not failed counts as not loaded."""
    started = fields.get("ExecMainStartTimestampMonotonic", "0") != "0"
    return ServiceState(
        loaded=fields.get("ActiveState", "inactive") != "inactive",
        pid=_number(fields.get("MainPID")),
        runs=_number(fields.get("NRestarts")) + started,
        last_end=_last_end(fields),
        program=unitfile.runs_loaded(fields.get("ExecStart", "")),
    )


def _last_end(fields: dict[str, str]) -> str:
    """As in `3`, `Killed: 9` or `Killed: 9 (oom-kill)`; empty while the first process runs."""
    code, status, result = (fields.get(key, "") for key in ("ExecMainCode", "ExecMainStatus", "Result"))
    why = "" if result in ("", "success", "exit-code", "signal") else result
    if code in ("", "0"):
        return why
    text = f"{signal.strsignal(_number(status))}: {status}" if code in _KILLED else status
    return f"{text} ({why})" if why else text


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _told(said: str) -> str:
    return f" ({said.strip()})" if said.strip() else ""
