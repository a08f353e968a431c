"""Calls of launchctl, or of the emulator's command of the same shape, for one label in one domain."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..core import process
from ..core.errors import ManagerRefused
from . import account, propertylist
from . import launchctl_codes as codes
from .manager import ServiceState

_CALL_TIMEOUT_S = 60.0
_FIELD = re.compile(r"^\t(path|program|state|pid|runs|last exit code|last terminating signal) = (.+)$", re.MULTILINE)
_ABSENT = (codes.DOMAIN_ABSENT, codes.WRONG_DOMAIN)
"""an absent domain, on older and on newer macOS; nothing is loaded there"""


@dataclass(frozen=True, kw_only=True)
class Launchctl:
    """`command` is launchctl's, with `environment` added; `plist` is the path of the label's property list."""

    command: tuple[str, ...]
    environment: dict[str, str]
    domain: str
    label: str
    plist: Path

    @property
    def target(self) -> str:
        """As launchctl names it: gui/501/label."""
        return f"{self.domain}/{self.label}"

    def look(self) -> dict[str, str] | None:
        """The first of each field of `print`; none if the label is not loaded, None if the domain is absent."""
        done = self.call("print", self.target)
        if done.returncode in _ABSENT:
            return None
        if done.returncode not in (0, codes.UNKNOWN_SERVICE):
            raise self.refused(done, ("print", self.target))
        return fields_of(done.output) if done.returncode == 0 else {}

    def call(self, *words: str) -> process.Completed:
        """Run it, as root where this process is root's. Raises `ManagerRefused` only when it does not answer."""
        with account.as_root():
            return process.run(
                (*self.command, *words),
                env=self.environment,
                check=False,
                timeout=_CALL_TIMEOUT_S,
                failure=ManagerRefused,
                what="launchctl",
            )

    def must(self, *words: str) -> None:
        """Run it. Raises `ManagerRefused` when it fails."""
        done = self.call(*words)
        if done.returncode != 0:
            raise self.refused(done, words)

    def refused(self, done: process.Completed, words: tuple[str, ...]) -> ManagerRefused:
        """The error for a call that failed, with launchd's code and what to try."""
        said = "".join(f"\n    {line}" for line in done.output.splitlines())
        hint = codes.hint(done.returncode, self.domain, propertylist.session_types(self.plist))
        return ManagerRefused(
            f"launchctl {' '.join(words)} ended with {codes.meaning(done.returncode)}{said}",
            hint=hint or f"`launchctl print {self.target}`, and the system log",
            code=done.returncode,
        )


def fields_of(printed: str) -> dict[str, str]:
    """The first of each field in what `print` says of a service."""
    fields: dict[str, str] = {}
    for key, value in _FIELD.findall(printed):
        fields.setdefault(key, value)
    return fields


def state_of(fields: dict[str, str]) -> ServiceState:
    """What the fields of `look` say."""
    end = fields.get("last terminating signal") or fields.get("last exit code", "")
    return ServiceState(
        loaded=bool(fields),
        pid=int(fields.get("pid", 0)),
        runs=int(fields.get("runs", 0)),
        last_end="" if "never" in end else end,
        program=fields.get("program", ""),
    )
