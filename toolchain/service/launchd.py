"""launchd, driven with launchctl, or with the emulator's command of the same shape.

The property list is written by plistlib; its bytes change only with the configuration, never with the release.
"""

from __future__ import annotations

import os
import plistlib
import pwd
import re
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from ..core import process, records
from ..core.config import DeployConfig
from ..core.errors import ConfigError, DomainUnavailable, LaunchdRefused
from . import launchctl_codes as codes
from .manager import Definition, Registration, ServiceState

THROTTLE_S = 10
"""launchd's own default, stated so that the health check can rely on it"""
EXIT_TIMEOUT_S = 10
"""between SIGTERM and SIGKILL: Ollama ends its llama-server children in this time"""
TEARDOWN_TIMEOUT_S = 30.0
"""until a label must be gone after bootout; over `EXIT_TIMEOUT_S`, after which launchd kills"""
BOOTSTRAP_TIMEOUT_S = 5.0
"""how long a bootstrap is tried again when it answers that a teardown is under way"""
_POLL_S = 0.05
_CALL_TIMEOUT_S = 60.0
_FIELD = re.compile(r"^\t(state|pid|runs|last exit code|last terminating signal) = (.+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class LaunchdManager:
    """One label in one domain, a `Manager`. Refusals are `LaunchdRefused`.

    `command` calls launchctl, with `environment` laid over ours; `plist` is where the property list lies.
    """

    command: tuple[str, ...]
    environment: dict[str, str]
    domain: str
    label: str
    plist: Path
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
        """Who a system daemon runs as: whoever called sudo, rather than root. Empty in other domains."""
        if self.domain != "system":
            return ""
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name

    def adopt(self, registration: Registration) -> LaunchdManager:
        """The service of that label, domain and property list."""
        return replace(self, label=registration.label, domain=registration.domain, plist=Path(registration.file))

    def check(self) -> None:
        """Make sure that the property list can be written. Raises `ConfigError`."""
        folder = self.plist.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"deploy.agents_dir: {folder} cannot be made: {error.strerror}") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"deploy.agents_dir: {folder} cannot be written", hint="set it to a folder of yours")

    def inspect(self) -> ServiceState:
        """What `launchctl print` says of the label."""
        done = self._call("print", self.target)
        if done.returncode == codes.UNKNOWN_SERVICE:
            return ServiceState(loaded=False)
        if done.returncode in (codes.DOMAIN_ABSENT, codes.WRONG_DOMAIN):
            raise DomainUnavailable(
                f"{self.target}: cannot tell whether the service runs: launchd has no domain {self.domain} here",
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
        home = Path(pwd.getpwnam(self.user).pw_dir) if self.user else Path.home()
        return property_list(definition, label=self.label, home=home, user=self.user)

    def install(self, definition: Definition) -> None:
        """Put the property list in its place, with the mode that launchd insists on."""
        records.write_bytes(self.plist, self.render(definition), mode=0o644)

    def digest(self) -> str:
        """SHA-256 of the property list; empty when there is none."""
        return records.sha256_file(self.plist) if self.plist.is_file() else ""

    def delete(self) -> None:
        """Delete the property list."""
        self.plist.unlink(missing_ok=True)

    def restart(self) -> None:
        """End the running instance and start another; load the service first where it is unknown."""
        done = self._call("kickstart", "-k", self.target)
        if done.returncode in (codes.UNKNOWN_SERVICE, codes.NO_SUCH_PROCESS, codes.DISABLED):
            self.reload()
        elif done.returncode != 0:
            raise self._refused(done, ("kickstart", "-k", self.target))

    def reload(self) -> None:
        """Make launchd read the plist anew: bootout, wait until the label is gone, enable, bootstrap, kickstart."""
        self.unload()
        self._must("enable", self.target)
        deadline = time.monotonic() + BOOTSTRAP_TIMEOUT_S
        while (done := self._call("bootstrap", self.domain, str(self.plist))).returncode != 0:
            if done.returncode not in codes.TRANSIENT or time.monotonic() > deadline:
                raise self._refused(done, ("bootstrap", self.domain, str(self.plist)))
            time.sleep(_POLL_S)
        if not self.inspect().running:
            self._must("kickstart", self.target)

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
                    hint=f"`launchctl print {self.target}` shows what holds it; then run it again",
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
        return LaunchdRefused(
            f"launchctl {' '.join(words)} ended with {codes.meaning(done.returncode)}{said}",
            hint=codes.HINTS.get(done.returncode, f"`launchctl print {self.target}`, and the system log"),
        )


def manager(config: DeployConfig, _home: Path, loaded_in: str) -> LaunchdManager:
    """The Mac's own launchd; `loaded_in` is as in `connect`.

    Raises `ConfigError` where there is none, or where the domain needs root.
    """
    if sys.platform != "darwin":
        raise ConfigError("deploy.service_manager: launchd is only on macOS", hint="auto takes the emulator elsewhere")
    found = connect(config, ("/bin/launchctl",), {}, loaded_in)
    if found.domain == "system" and os.geteuid() != 0:
        raise ConfigError("deploy.domain: the system domain needs root", hint="run it with sudo, or use user/UID")
    return found


def connect(
    config: DeployConfig,
    command: tuple[str, ...],
    environment: dict[str, str],
    loaded_in: str,
    folder: Path | None = None,
) -> LaunchdManager:
    """The service that the configuration names, by way of `command`; its property list lies in `folder`, if given.

    `loaded_in` is the domain that it was installed in. An automatic domain stays there: over SSH, with nobody at the
    screen, the service must not be loaded a second time in another domain.
    """
    domain = config.domain
    if domain == "auto":
        domain = loaded_in or _automatic_domain(command, environment)
    if config.agents_dir:
        folder = Path(config.agents_dir).expanduser().absolute()
    elif folder is None:
        folder = Path("/Library/LaunchDaemons") if domain == "system" else Path.home() / "Library" / "LaunchAgents"
    return LaunchdManager(
        command=command,
        environment=environment,
        domain=domain,
        label=config.label,
        plist=folder / f"{config.label}.plist",
    )


def property_list(definition: Definition, *, label: str, home: Path, user: str = "") -> bytes:
    """The property list. The same arguments give the same bytes.

    `user` is the account of a system daemon. Raises `ConfigError` for text that XML cannot hold.
    """
    content: dict[str, Any] = {
        "Label": label,
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
        raise ConfigError(f"the path {str(definition.program)!r} or {str(home)!r} does not survive XML")
    return data


def _automatic_domain(command: tuple[str, ...], environment: dict[str, str]) -> str:
    """gui/UID while that user is logged in at the screen, else user/UID, which exists over SSH too."""
    gui = f"gui/{os.getuid()}"
    done = process.run((*command, "print", gui), env=environment, check=False, timeout=_CALL_TIMEOUT_S)
    return gui if done.returncode == 0 else f"user/{os.getuid()}"
