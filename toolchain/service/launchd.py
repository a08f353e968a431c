"""launchd, driven with launchctl, or with the emulator's command of the same shape.

The property list is written by plistlib; its bytes change only with the configuration, never with the release.
"""

from __future__ import annotations

import os
import plistlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from ..core import process, records
from ..core.config import DeployConfig
from ..core.errors import ConfigError, DomainUnavailable, LaunchdRefused
from . import account
from . import launchctl_codes as codes
from .account import Account
from .manager import Definition, Registration, ServiceState

THROTTLE_S = 10
"""launchd's default, set explicitly because the health check depends on it"""
EXIT_TIMEOUT_S = 10
"""between SIGTERM and SIGKILL: Ollama ends its llama-server children in this time"""
TEARDOWN_TIMEOUT_S = 30.0
"""limit for a label to disappear after bootout; longer than `EXIT_TIMEOUT_S`, after which launchd kills"""
BOOTSTRAP_TIMEOUT_S = 5.0
"""how long bootstrap is retried while a teardown is in progress"""
START_TIMEOUT_S = 5.0
"""limit for a start that launchd says is in progress (36, 37)"""
SESSION_TYPES = ("Aqua", "Background", "LoginWindow", "StandardIO", "System")
"""every session, as Homebrew's services have it: without the key an agent belongs to Aqua and is refused over SSH"""
_POLL_S = 0.05
_CALL_TIMEOUT_S = 60.0
_FIELD = re.compile(r"^\t(state|pid|runs|last exit code|last terminating signal) = (.+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class LaunchdManager:
    """One label in one domain, a `Manager`. Refusals are `LaunchdRefused`.

    `command` calls launchctl, with `environment` added; `plist` is the property list's path.
    """

    command: tuple[str, ...]
    environment: dict[str, str]
    domain: str
    label: str
    plist: Path
    account: Account
    """the service's"""
    kind: str = "launchd"

    @property
    def target(self) -> str:
        """As launchctl names it: gui/501/label."""
        return f"{self.domain}/{self.label}"

    @property
    def registration(self) -> Registration:
        """Label, domain and property list."""
        return Registration(label=self.label, domain=self.domain, file=str(self.plist))

    @property
    def user(self) -> str:
        """The user of a system daemon. Empty in other domains, which belong to a user."""
        return self.account.name if self.domain == "system" else ""

    def adopt(self, registration: Registration) -> LaunchdManager:
        """The service of that label, domain and property list."""
        return replace(self, label=registration.label, domain=registration.domain, plist=Path(registration.file))

    def check(self) -> None:
        """Check that the property list can be written. Raises `ConfigError`."""
        folder = self.plist.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"deploy.agents_dir: {folder} cannot be created: {error.strerror}") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"deploy.agents_dir: {folder} is not writable", hint="choose a folder of yours")

    def inspect(self) -> ServiceState:
        """The service's state from `launchctl print`."""
        done = self._call("print", self.target)
        if done.returncode == codes.UNKNOWN_SERVICE:
            return ServiceState(loaded=False)
        if done.returncode in (codes.DOMAIN_ABSENT, codes.WRONG_DOMAIN):
            raise DomainUnavailable(
                f"{self.target}: the state of the service is unknown: launchd's domain {self.domain} is unavailable",
                hint="gui/UID exists only while that user is logged in at the screen; over SSH use user/UID or system",
            )
        if done.returncode != 0:
            raise self._refused(done, ("print", self.target))
        fields: dict[str, str] = {}
        for key, value in _FIELD.findall(done.output):
            fields.setdefault(key, value)
        end = fields.get("last terminating signal") or fields.get("last exit code", "")
        return ServiceState(
            loaded=True,
            pid=int(fields.get("pid", 0)),
            runs=int(fields.get("runs", 0)),
            last_end="" if "never" in end else end,
        )

    def render(self, definition: Definition) -> bytes:
        """The property list."""
        return property_list(definition, label=self.label, home=self.account.home, user=self.user)

    def describe(self, data: bytes) -> dict[str, str]:
        """The entries of a property list: EnvironmentVariables.HOME."""
        try:
            content = plistlib.loads(data)
        except (plistlib.InvalidFileException, ExpatError, ValueError, LookupError, OverflowError):
            return {}
        return dict(_entries(content, "")) if isinstance(content, dict) else {}

    def install(self, definition: Definition) -> None:
        """Write the property list, with the mode that launchd requires."""
        records.write_bytes(self.plist, self.render(definition), mode=0o644)

    def digest(self) -> str:
        """SHA-256 of the property list; empty if there is none."""
        return records.sha256_file(self.plist) if self.plist.is_file() else ""

    def delete(self) -> None:
        """Delete the property list."""
        self.plist.unlink(missing_ok=True)

    def restart(self) -> bool:
        """End the running instance and start another; load the service first if it is not loaded.

        `kickstart -k` would kill at once, with SIGKILL, and cut what the service is doing. So the process gets SIGTERM
        and its ExitTimeOut first. Returns whether that was enough.
        """
        before = self.inspect()
        if not before.loaded:
            self.reload()
            return True
        ended = not before.running or self._terminate(before)
        try:
            self._kickstart(before, *(() if ended else ("-k",)))
        except LaunchdRefused as refused:
            if refused.code not in (codes.UNKNOWN_SERVICE, codes.NO_SUCH_PROCESS, codes.DISABLED):
                raise
            self.reload()
        return ended

    def _terminate(self, before: ServiceState) -> bool:
        """Send SIGTERM to the process, and wait until it has ended. False when it still runs after ExitTimeOut."""
        done = self._call("kill", "SIGTERM", self.target)
        if done.returncode not in (0, codes.NO_SUCH_PROCESS, codes.UNKNOWN_SERVICE):
            raise self._refused(done, ("kill", "SIGTERM", self.target))
        deadline = time.monotonic() + EXIT_TIMEOUT_S
        while (state := self.inspect()).pid == before.pid and state.runs == before.runs:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _kickstart(self, before: ServiceState, *flags: str) -> None:
        """Start it now, whatever its throttle; `before` is its state before that."""
        words = ("kickstart", *flags, self.target)
        done = self._call(*words)
        if done.returncode != 0 and not (done.returncode in codes.PROGRESSING and self._starts(before)):
            raise self._refused(done, words)

    def _starts(self, before: ServiceState) -> bool:
        """Wait until another process than before runs, or has run."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            state = self.inspect()
            if state.pid not in (0, before.pid) or state.runs > before.runs:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)

    def reload(self) -> None:
        """Make launchd reload the plist: bootout, wait until the label is gone, enable, bootstrap, kickstart."""
        self.unload()
        self._must("enable", self.target)
        deadline = time.monotonic() + BOOTSTRAP_TIMEOUT_S
        while (done := self._call("bootstrap", self.domain, str(self.plist))).returncode != 0:
            if done.returncode not in codes.TRANSIENT or time.monotonic() > deadline:
                raise self._refused(done, ("bootstrap", self.domain, str(self.plist)))
            time.sleep(_POLL_S)
        if not (state := self.inspect()).running:
            self._kickstart(state)

    def unload(self) -> None:
        """Boot the service out and wait until its process and its label are gone, which bootout does not wait for."""
        done = self._call("bootout", self.target)
        gone = (codes.NO_SUCH_PROCESS, codes.UNKNOWN_SERVICE)
        if done.returncode not in (0, *gone, *codes.TRANSIENT):
            raise self._refused(done, ("bootout", self.target))
        deadline = time.monotonic() + TEARDOWN_TIMEOUT_S
        while self.inspect().loaded:
            if time.monotonic() > deadline:
                raise LaunchdRefused(
                    f"{self.target}: still loaded {TEARDOWN_TIMEOUT_S:g} s after bootout",
                    hint=f"`launchctl print {self.target}` shows what holds it; then try again",
                )
            time.sleep(_POLL_S)

    def _call(self, *words: str) -> process.Completed:
        return process.run(
            (*self.command, *words),
            env=self.environment,
            check=False,
            timeout=_CALL_TIMEOUT_S,
            failure=LaunchdRefused,
            what="launchctl",
        )

    def _must(self, *words: str) -> None:
        done = self._call(*words)
        if done.returncode != 0:
            raise self._refused(done, words)

    def _refused(self, done: process.Completed, words: tuple[str, ...]) -> LaunchdRefused:
        said = "".join(f"\n    {line}" for line in done.output.splitlines())
        hint = codes.hint(done.returncode, self.domain, self._session_types())
        return LaunchdRefused(
            f"launchctl {' '.join(words)} ended with {codes.meaning(done.returncode)}{said}",
            hint=hint or f"`launchctl print {self.target}`, and the system log",
            code=done.returncode,
        )

    def _session_types(self) -> tuple[str, ...]:
        """The sessions that the installed property list is for; empty if it does not say, or cannot be read."""
        try:
            found = plistlib.loads(self.plist.read_bytes())
        except (OSError, plistlib.InvalidFileException, ExpatError, ValueError):
            return ()
        stated = found.get("LimitLoadToSessionType", ()) if isinstance(found, dict) else ()
        return tuple(str(one) for one in ([stated] if isinstance(stated, str) else stated))


def manager(config: DeployConfig, _home: Path, loaded_in: str) -> LaunchdManager:
    """The Mac's own launchd; `loaded_in` is as in `connect`.

    Raises `ConfigError` without launchd, or when the domain needs root.
    """
    if sys.platform != "darwin":
        raise ConfigError("deploy.service_manager: launchd is only on macOS", hint="auto uses the emulator elsewhere")
    found = connect(config, ("/bin/launchctl",), {}, loaded_in)
    if found.domain == "system" and os.geteuid() != 0:
        raise ConfigError("deploy.domain: the system domain needs root", hint="run it with sudo, or use user/UID")
    return found


def connect(
    config: DeployConfig,
    command: tuple[str, ...],
    environment: dict[str, str],
    loaded_in: str,
    folder_of: Callable[[str], Path] | None = None,
) -> LaunchdManager:
    """The configured service, managed with `command`; its property list is in `folder_of` its domain, if given.

    `loaded_in` is the domain that it was installed in. An automatic domain stays the same: over SSH, without a user at
    the screen, the service must not be loaded again in another domain.
    """
    domain, owner = config.domain, account.of_service(config)
    if domain == "auto":
        domain = loaded_in or _automatic_domain(command, environment, owner.uid)
    if config.agents_dir:
        folder = Path(config.agents_dir).expanduser().absolute()
    elif folder_of:
        folder = folder_of(domain)
    else:
        folder = Path("/Library/LaunchDaemons") if domain == "system" else owner.home / "Library/LaunchAgents"
    return LaunchdManager(
        command=command,
        environment=environment,
        domain=domain,
        label=config.label,
        plist=folder / f"{config.label}.plist",
        account=owner,
    )


def _entries(content: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _entries(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def property_list(definition: Definition, *, label: str, home: Path, user: str = "") -> bytes:
    """The property list. The same arguments give the same bytes.

    `user` is the account of a system daemon. Raises `ConfigError` for text that XML cannot hold.
    """
    content: dict[str, Any] = {
        "Label": label,
        "LimitLoadToSessionType": list(SESSION_TYPES),
        "ProgramArguments": [str(definition.program)],
        "RunAtLoad": True,
        "KeepAlive": True,
        "ProcessType": "Interactive",
        "ThrottleInterval": THROTTLE_S,
        "ExitTimeOut": EXIT_TIMEOUT_S,
        "EnvironmentVariables": {"HOME": str(home), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        "StandardOutPath": str(definition.log),
        "StandardErrorPath": str(definition.log),
        **({"UserName": user} if user else {}),
    }
    try:
        data = plistlib.dumps(content, sort_keys=False)
        survives = plistlib.loads(data) == content
    except (plistlib.InvalidFileException, ExpatError, ValueError) as error:
        raise ConfigError(f"no property list can be made for {str(definition.program)!r}: {error}") from error
    if not survives:
        raise ConfigError(f"the path {str(definition.program)!r} or {str(home)!r} cannot be stored in XML")
    return data


def _automatic_domain(command: tuple[str, ...], environment: dict[str, str], uid: int) -> str:
    """gui/UID while that user is logged in at the screen, else user/UID, which exists over SSH too."""
    gui = f"gui/{uid}"
    done = process.run((*command, "print", gui), env=environment, check=False, timeout=_CALL_TIMEOUT_S)
    return gui if done.returncode == 0 else f"user/{uid}"
