"""launchd, driven with launchctl, or with the emulator's command of the same shape."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ..core import records
from ..core.errors import ConfigError, ManagerRefused, ManagerUnavailable
from . import account, preflight, propertylist
from . import launchctl_codes as codes
from .account import Account
from .launchctl import Launchctl, state_of
from .manager import Definition, Instance, Registration, ServiceState, has_ended

TEARDOWN_TIMEOUT_S = 30.0
"""limit for a label to disappear after bootout; longer than `propertylist.EXIT_TIMEOUT_S`, after which launchd kills"""
BOOTSTRAP_TIMEOUT_S = 5.0
"""how long bootstrap is retried while a teardown is in progress"""
START_TIMEOUT_S = 5.0
"""limit for a start that launchd says is in progress (36, 37)"""
DAEMONS, EVERYBODYS_AGENTS = Path("/Library/LaunchDaemons"), Path("/Library/LaunchAgents")
_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class LaunchdManager(Launchctl):
    """One label in one domain, a `Manager`. Refusals are `ManagerRefused`.

    `command` calls launchctl, with `environment` added; `plist` is the property list's path.
    """

    account: Account | None
    """the service's; None when root would have to guess it"""
    owner: Account
    """to whom the prefix and the property list belong: root for a daemon, else the service's account"""
    folders: tuple[Path, ...] = ()
    """where launchd looks for property lists at a login or a boot"""
    name: str = "launchd"
    """of the manager, as deploy.service_manager has it"""
    needs_root: bool = False
    """whether only root may change the system domain"""
    kind: str = "launchd"

    @property
    def registration(self) -> Registration:
        """Label, domain and property list."""
        return Registration(label=self.label, domain=self.domain, file=str(self.plist), manager=self.name)

    @property
    def user(self) -> str:
        """The user of a system daemon. Empty in other domains, which belong to a user."""
        return self._account().name if self.domain == account.SYSTEM else ""

    @property
    def caution(self) -> str:
        """That a service in user/UID does not come back by itself after a boot."""
        if not self.domain.startswith("user/"):
            return ""
        return (
            f"{self.domain} ends with a reboot: the service comes back only when {self._account().name} logs in at the "
            "screen; on a Mac that nobody logs in to, set deploy.domain to system and use sudo"
        )

    def adopt(self, registration: Registration) -> LaunchdManager:
        """The service of that label, domain and property list."""
        return replace(self, label=registration.label, domain=registration.domain, plist=Path(registration.file))

    def doubt(self, registration: Registration, program: Path) -> str:
        """By its domain, the folder and name of its property list, and what that and the loaded service run."""
        file, domain = Path(registration.file), registration.domain
        uid = self.account.uid if self.account else ""
        if domain not in (account.SYSTEM, f"gui/{uid}", f"user/{uid}"):
            return f"{domain!r} is no domain of {self.account.name if self.account else 'the service'}"
        folders = dict.fromkeys((self.plist.parent, *self.folders))
        # Another folder is that of a former deploy.agents_dir, if what lies there runs our program.
        known = file.parent in folders or os.path.realpath(propertylist.program(file)) == os.path.realpath(program)
        if not known or file.name != f"{registration.label}.plist":
            return f"{file} is no property list of {registration.label} in {', '.join(map(str, folders))}"
        for runs in (propertylist.program(file), self.adopt(registration)._loaded_program()):
            if runs and os.path.realpath(runs) != os.path.realpath(program):
                return f"{registration.label} runs {runs}, which is not ours"
        return ""

    def find(self, program: Path) -> Registration | None:
        """By the property lists of this user; the one of this label first, in the domain where it is loaded."""
        files = (self.plist, *(file for folder in self.folders for file in sorted(folder.glob("*.plist"))))
        real = os.path.realpath(program)
        for file in (file for file in files if (runs := propertylist.program(file)) and os.path.realpath(runs) == real):
            there = (replace(self, label=file.stem, plist=file, domain=domain) for domain in self._domains())
            places = [one.registration for one in there if one._loaded_program()]
            return places[0] if places else replace(self, label=file.stem, plist=file).registration
        return None

    def _loaded_program(self) -> str:
        try:
            return (self.look() or {}).get("program", "")
        except ManagerRefused:
            return ""

    def check(self) -> None:
        """Check that the property list can be written. Raises `ConfigError`."""
        self.require_rights()
        folder = self.plist.parent
        try:
            records.make_folder(folder)
        except OSError as error:
            raise ConfigError(f"deploy.agents_dir: {folder} cannot be created: {error.strerror}") from error
        if not account.is_writable(folder):
            raise ConfigError(f"deploy.agents_dir: {folder} is not writable", hint="choose a folder of yours")

    def require_rights(self) -> None:
        """Raises `ConfigError` when only root may change the service. `inspect` is for everybody."""
        if self.domain == "system" and self.needs_root and not account.is_root():
            raise ConfigError(f"{self.target}: the system domain needs root", hint="run it with sudo, or use user/UID")
        with account.keeping(self.plist.parent):
            writable = not os.path.lexists(self.plist) or account.is_writable(self.plist.parent)
        if not writable:
            raise ConfigError(f"{self.plist}: its folder is not writable", hint="run it with sudo")

    def preflight(self) -> None:
        """Load a job that ends at once from a property list like the service's. Raises `PreflightRefused`."""
        self.sweep()
        preflight.run(self._probe(), self.render(Definition(program=preflight.PROGRAM, log=Path("/dev/null"))))

    def sweep(self) -> None:
        """Boot out the preflight's job and delete its property list, wherever they are."""
        preflight.sweep(self._probe())

    def load(self) -> None:
        """Load the property list, once a teardown of the label has ended."""
        words = ("bootstrap", self.domain, str(self.plist))
        deadline = time.monotonic() + BOOTSTRAP_TIMEOUT_S
        while (done := self.call(*words)).returncode != 0:
            if done.returncode not in codes.TRANSIENT or time.monotonic() > deadline:
                raise self.refused(done, words)
            time.sleep(_POLL_S)

    def discard(self) -> None:
        """Boot it out if it is loaded, without waiting for the end."""
        self.call("bootout", self.target)

    def _probe(self) -> LaunchdManager:
        label = f"{self.label}.preflight"
        return replace(self, label=label, plist=self.plist.with_name(f"{label}.plist"))

    def inspect(self) -> ServiceState:
        """The service's state from `launchctl print`."""
        fields = self.look()
        if fields is None:
            raise ManagerUnavailable(
                f"{self.target}: the state of the service is unknown: launchd's domain {self.domain} is unavailable",
                hint="gui/UID exists only while that user is logged in at the screen; over SSH use user/UID or system",
            )
        return state_of(fields)

    def instances(self) -> tuple[Instance, ...]:
        """The service in every domain where its label is loaded, with the property list that it was loaded from.

        Raises `ManagerUnavailable` when none of the domains exists.
        """
        found = {domain: replace(self, domain=domain).look() for domain in self._domains()}
        if all(fields is None for fields in found.values()):
            raise ManagerUnavailable(
                f"{self.target}: the state of the service is unknown: launchd has none of {', '.join(found)}",
                hint="`launchctl print system` shows whether launchd answers at all",
            )
        return tuple(self._instance(domain, fields) for domain, fields in found.items() if fields)

    def _instance(self, domain: str, fields: dict[str, str]) -> Instance:
        path = fields.get("path", "")
        file = Path(path) if path.startswith("/") else self.plist
        return Instance(manager=replace(self, domain=domain, plist=file), state=state_of(fields))

    def definitions(self) -> tuple[Path, ...]:
        """Every property list of the label in the folders that launchd reads, whatever its file is called."""
        return propertylist.of_label(self.label, (self.plist.parent, *self.folders))

    def runs(self, file: Path) -> str:
        """The program of a property list; empty for a link, whose target may change."""
        return propertylist.program(file).removeprefix("?")

    def _domains(self) -> tuple[str, ...]:
        """The domains in which the service could be loaded, its own first."""
        uid = self.domain.partition("/")[2] or (str(self.account.uid) if self.account else "")
        own = (f"gui/{uid}", f"user/{uid}") if uid else ()
        return tuple(dict.fromkeys((self.domain, *own, account.SYSTEM)))

    def render(self, definition: Definition) -> bytes:
        """The property list."""
        return propertylist.property_list(definition, label=self.label, home=self._account().home, user=self.user)

    def describe(self, data: bytes) -> dict[str, str]:
        """The entries of a property list: EnvironmentVariables.HOME."""
        return propertylist.entries(data)

    def user_of(self, data: bytes) -> str:
        """UserName of a property list."""
        return self.describe(data).get("UserName", "")

    def install(self, definition: Definition) -> None:
        """Write the property list, with the mode that launchd requires."""
        records.write_bytes(self.plist, self.render(definition), mode=0o644)

    def digest(self) -> str:
        """SHA-256 of the property list; empty if there is none."""
        return records.sha256_file(self.plist) if self.plist.is_file() else ""

    def delete(self) -> None:
        """Delete the property list; with root's rights only where no other user can replace its folder."""
        with account.keeping(self.plist.parent):
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
        except ManagerRefused as refused:
            if refused.code not in (codes.UNKNOWN_SERVICE, codes.NO_SUCH_PROCESS, codes.DISABLED):
                raise
            self.reload()
        return ended

    def _terminate(self, before: ServiceState) -> bool:
        """Send SIGTERM to the process, and wait until it has ended. False when it still runs after ExitTimeOut."""
        done = self.call("kill", "SIGTERM", self.target)
        if done.returncode not in (0, codes.NO_SUCH_PROCESS, codes.UNKNOWN_SERVICE):
            raise self.refused(done, ("kill", "SIGTERM", self.target))
        return has_ended(self, before, propertylist.EXIT_TIMEOUT_S)

    def _kickstart(self, before: ServiceState, *flags: str) -> None:
        """Start it now, whatever its throttle; `before` is its state before that."""
        words = ("kickstart", *flags, self.target)
        done = self.call(*words)
        if done.returncode != 0 and not (done.returncode in codes.PROGRESSING and self._starts(before)):
            raise self.refused(done, words)

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
        self.must("enable", self.target)
        self.load()
        if not (state := self.inspect()).running:
            self._kickstart(state)

    def unload(self) -> None:
        """Boot the service out and wait until its process and its label are gone, which bootout does not wait for."""
        done = self.call("bootout", self.target)
        gone = (codes.NO_SUCH_PROCESS, codes.UNKNOWN_SERVICE)
        if done.returncode not in (0, *gone, *codes.TRANSIENT):
            raise self.refused(done, ("bootout", self.target))
        deadline = time.monotonic() + TEARDOWN_TIMEOUT_S
        while self.inspect().loaded:
            if time.monotonic() > deadline:
                raise ManagerRefused(
                    f"{self.target}: still loaded {TEARDOWN_TIMEOUT_S:g} s after bootout",
                    hint=f"`launchctl print {self.target}` shows what holds it; then try again",
                )
            time.sleep(_POLL_S)

    def _account(self) -> Account:
        return account.known(self.account)
