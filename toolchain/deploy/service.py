"""The service as launchd sees it: driven with launchctl, or with our stand-in's command of the same shape."""

from __future__ import annotations

import os
import pwd
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .. import launchctl
from ..core import process, records
from ..core.config import Config
from ..core.errors import ConfigError, DomainUnavailable, LaunchdRefused
from ..core.records import record
from ..standin import launchctl as launchctl_of_standin
from . import templates
from .layout import Layout

TEARDOWN_TIMEOUT_S = 30.0
"""until a label must be gone after bootout; over `templates.EXIT_TIMEOUT_S`, after which launchd kills"""
BOOTSTRAP_TIMEOUT_S = 5.0
"""how long a bootstrap is tried again when it answers that a teardown is under way"""
_POLL_S = 0.05
_CALL_TIMEOUT_S = 60.0
_FIELD = re.compile(r"^\t(state|pid|runs|last exit code|last terminating signal) = (.+)$", re.MULTILINE)


@record
class ServiceState:
    """What `launchctl print` says about a label. `runs` counts the starts since it was loaded."""

    loaded: bool
    pid: int = 0
    runs: int = 0
    last_end: str = ""
    """how the last process ended, in launchctl's words; empty when none has"""

    @property
    def running(self) -> bool:
        """A process is up right now."""
        return self.pid > 0


@dataclass(frozen=True, kw_only=True)
class Service:
    """One label in one domain. Its methods raise `LaunchdRefused`, or `DomainUnavailable` when nothing can be told."""

    command: tuple[str, ...]
    environment: dict[str, str]
    domain: str
    label: str
    plist: Path

    @property
    def target(self) -> str:
        """As launchctl names it."""
        return f"{self.domain}/{self.label}"

    def inspect(self, label: str = "") -> ServiceState:
        """The state of the service, or of another label in the same domain."""
        target = f"{self.domain}/{label or self.label}"
        done = self._call("print", target)
        if done.returncode == launchctl.UNKNOWN_SERVICE:
            return ServiceState(loaded=False)
        if done.returncode in (launchctl.DOMAIN_ABSENT, launchctl.WRONG_DOMAIN):
            raise DomainUnavailable(
                f"{target}: cannot tell whether the service runs: launchd has no domain {self.domain} here",
                hint="gui/UID exists only while that user is logged in at the screen; over SSH use user/UID or system",
            )
        if done.returncode != 0:
            raise self._refused(done, ("print", target))
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

    def restart(self) -> None:
        """End the running instance and start another; load the service first where it is unknown."""
        done = self._call("kickstart", "-k", self.target)
        if done.returncode in (launchctl.UNKNOWN_SERVICE, launchctl.NO_SUCH_PROCESS, launchctl.DISABLED):
            self.reload()
        elif done.returncode != 0:
            raise self._refused(done, ("kickstart", "-k", self.target))

    def reload(self) -> None:
        """Make launchd read the plist anew: bootout, wait until the label is gone, enable, bootstrap, kickstart."""
        self.unload()
        self._must("enable", self.target)
        deadline = time.monotonic() + BOOTSTRAP_TIMEOUT_S
        while (done := self._call("bootstrap", self.domain, str(self.plist))).returncode != 0:
            if done.returncode not in launchctl.TRANSIENT or time.monotonic() > deadline:
                raise self._refused(done, ("bootstrap", self.domain, str(self.plist)))
            time.sleep(_POLL_S)
        if not self.inspect().running:
            self._must("kickstart", self.target)

    def unload(self) -> None:
        """Boot the service out and wait until its process and its label are gone, which bootout does not wait for."""
        done = self._call("bootout", self.target)
        gone = (launchctl.NO_SUCH_PROCESS, launchctl.UNKNOWN_SERVICE)
        if done.returncode not in (0, *gone, *launchctl.TRANSIENT):
            raise self._refused(done, ("bootout", self.target))
        deadline = time.monotonic() + TEARDOWN_TIMEOUT_S
        while self.inspect().loaded:
            if time.monotonic() > deadline:
                raise LaunchdRefused(
                    f"{self.target}: still loaded {TEARDOWN_TIMEOUT_S:g} s after bootout",
                    hint=f"`launchctl print {self.target}` shows what holds it; then run it again",
                )
            time.sleep(_POLL_S)

    def write_plist(self, data: bytes) -> None:
        """Put the plist in its place, with the mode that launchd insists on."""
        records.write_bytes(self.plist, data, mode=0o644)

    def check_folder(self) -> None:
        """Make sure that the plist can be written. Raises `ConfigError`."""
        folder = self.plist.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"deploy.agents_dir: {folder} cannot be made: {error.strerror}") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"deploy.agents_dir: {folder} cannot be written", hint="set it to a folder of yours")

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
            f"launchctl {' '.join(words)} ended with {launchctl.meaning(done.returncode)}{said}",
            hint=launchctl.HINTS.get(done.returncode, f"`launchctl print {self.target}`, and the system log"),
        )


def of(config: Config, layout: Layout, *, loaded_in: str = "") -> Service:
    """The service that the configuration names. Raises `ConfigError` when it cannot be had on this machine.

    `loaded_in` is the domain that it was installed in. An automatic domain stays there: over SSH, with nobody at the
    screen, the service must not be loaded a second time in another domain.
    """
    manager: str = config.deploy.service_manager
    if manager == "auto":
        manager = "launchd" if sys.platform == "darwin" else "standin"
    if manager == "launchd":
        if sys.platform != "darwin":
            raise ConfigError(
                "deploy.service_manager: launchd is only on macOS", hint="auto takes the stand-in elsewhere"
            )
        command, environment = ("/bin/launchctl",), dict[str, str]()
    else:
        command = (sys.executable, "-I", "-S", launchctl_of_standin.__file__)
        environment = {launchctl_of_standin.ROOT_VARIABLE: str(layout.standin)}
    domain = config.deploy.domain
    if domain == "auto":
        domain = loaded_in or _automatic_domain(command, environment)
    if domain == "system" and manager == "launchd" and os.geteuid() != 0:
        raise ConfigError("deploy.domain: the system domain needs root", hint="run it with sudo, or use user/UID")
    return Service(
        command=command,
        environment=environment,
        domain=domain,
        label=config.deploy.label,
        plist=_agents_folder(config, layout, manager, domain) / f"{config.deploy.label}.plist",
    )


def account(service: Service) -> tuple[str, Path]:
    """Who the service runs as and that user's home. The name is empty outside the system domain: it is the caller."""
    if service.domain != "system":
        return "", Path.home()
    name = os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    return name, Path(pwd.getpwnam(name).pw_dir)


def render_plist(service: Service, layout: Layout) -> bytes:
    """The plist of this service. The bytes change only with the configuration, never with the release."""
    user, home = account(service)
    return templates.plist(layout, label=service.label, home=home, user=user)


def _automatic_domain(command: tuple[str, ...], environment: dict[str, str]) -> str:
    """gui/UID while that user is logged in at the screen, else user/UID, which exists over SSH too."""
    gui = f"gui/{os.getuid()}"
    done = process.run((*command, "print", gui), env=environment, check=False, timeout=_CALL_TIMEOUT_S)
    return gui if done.returncode == 0 else f"user/{os.getuid()}"


def _agents_folder(config: Config, layout: Layout, manager: str, domain: str) -> Path:
    if config.deploy.agents_dir:
        return Path(config.deploy.agents_dir).expanduser().absolute()
    if manager == "standin":
        return layout.standin / "LaunchAgents"
    return Path("/Library/LaunchDaemons") if domain == "system" else Path.home() / "Library" / "LaunchAgents"
