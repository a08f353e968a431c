"""systemd as a `Manager`: one unit, of the system's systemd or of a user's."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from ...core import process, records
from ...core.errors import ConfigError, ManagerRefused, ManagerUnavailable, PreflightRefused, ToolchainError
from .. import account
from ..account import Account
from ..manager import Definition, Instance, Registration, ServiceState, has_ended
from . import unitfile
from .systemctl import Systemctl, state_of

START_TIMEOUT_S = 5.0
_LINGER = Path("/var/lib/systemd/linger")
_VERIFY_S = 1.0
_POLL_S = 0.05
_DECISIVE = ("Service.ExecStart", "Service.User", "Service.Type", "Service.Restart", "Service.KillMode")
"""what a drop-in must not change: then the service would not be the one that was checked"""


@dataclass(frozen=True, kw_only=True)
class SystemdManager(Systemctl):
    """One label in one domain, a `Manager`. Refusals are `ManagerRefused`; `file` is the path of its unit file."""

    owner: Account
    """to whom the prefix and the unit file belong: root for a system unit, else the service's account"""
    folders: tuple[tuple[str, tuple[Path, ...]], ...] = ()
    """each domain of this service with the folders of its units"""
    analyze: tuple[str, ...] = ("systemd-analyze",)
    name: str = "systemd"
    """of the manager, as deploy.service_manager has it"""
    kind: str = "systemd"

    @property
    def registration(self) -> Registration:
        """Label, domain and unit file."""
        return Registration(label=self.label, domain=self.domain, file=str(self.file), manager=self.name)

    @property
    def user(self) -> str:
        """The user of a system unit. Empty for a user's unit."""
        return self._account().name if self.domain == account.SYSTEM else ""

    @property
    def caution(self) -> str:
        """That a user's unit ends at the logout, and which drop-ins change the unit."""
        said = []
        if self.domain != account.SYSTEM and not (_LINGER / self._account().name).exists():
            said.append(
                f"{self.target} ends when {self._account().name} logs out, and does not start at a boot: "
                f"`sudo loginctl enable-linger {self._account().name}` changes that"
            )
        with contextlib.suppress(ToolchainError):
            changed = [f"{path} ({', '.join(found)})" for path, found in self._drop_ins().items()]
            said += [f"drop-ins change {self.unit}: {'; '.join(changed)}"] if changed else []
        return "; ".join(said)

    def adopt(self, registration: Registration) -> SystemdManager:
        """The service of that label, domain and unit file."""
        return replace(self, label=registration.label, domain=registration.domain, file=Path(registration.file))

    def doubt(self, registration: Registration, program: Path) -> str:
        """By its domain, the folder and name of its unit file, and what that and the loaded unit run."""
        file, domain = Path(registration.file), registration.domain
        known = dict(self.folders)
        if domain not in known:
            return f"{domain!r} is no domain of {self.account.name if self.account else 'the service'}"
        real = os.path.realpath(program)
        folders = (self.file.parent, *known[domain])
        if file.name != f"{registration.label}{unitfile.SUFFIX}" or not (
            file.parent in folders or os.path.realpath(unitfile.program(file)) == real
        ):
            return f"{file} is no unit file of {registration.label} in {', '.join(map(str, folders))}"
        loaded = ""
        with contextlib.suppress(ManagerUnavailable):
            loaded = state_of(self.adopt(registration).look()).program
        for runs in (unitfile.program(file), loaded):
            if runs and os.path.realpath(runs) != real:
                return f"{registration.label} runs {runs}, which is not ours"
        return ""

    def find(self, program: Path) -> Registration | None:
        """By the unit files of every domain; the configured one first."""
        real = os.path.realpath(program)
        places = [(self.domain, self.file)]
        for domain, folders in self.folders:
            places += [(domain, file) for folder in folders for file in sorted(folder.glob(f"*{unitfile.SUFFIX}"))]
        for domain, file in places:
            if (runs := unitfile.program(file)) and os.path.realpath(runs) == real:
                return replace(
                    self, label=file.name.removesuffix(unitfile.SUFFIX), domain=domain, file=file
                ).registration
        return None

    def check(self) -> None:
        """Check that systemd answers, reads the unit's folder and has the unit neither masked nor overridden.

        Raises `ConfigError`, `ManagerUnavailable` and `ManagerRefused`.
        """
        self.require_rights()
        folder = self.file.parent
        self._refuse_overrides()
        try:
            records.make_folder(folder)
        except OSError as error:
            raise ConfigError(f"{folder} cannot be created: {error.strerror}", hint=self._elsewhere()) from error
        if not account.is_writable(folder):
            raise ConfigError(f"{folder}, the folder of the unit, is not writable", hint=self._elsewhere())
        path = self.call("show", "--property=UnitPath", "--value").text.strip()
        if path and f" {folder} " not in f" {path} ":
            raise ConfigError(
                f"deploy.agents_dir: systemd ({self.domain}) reads no units in {folder}", hint=f"it reads: {path}"
            )

    def require_rights(self) -> None:
        """Raises `ConfigError` when only root may change the service. `inspect` is for everybody."""
        if self.domain == account.SYSTEM and not account.is_root():
            raise ConfigError(
                f"{self.target}: a system unit needs root", hint="run it with sudo, or deploy.domain=user"
            )
        with account.keeping(self.file.parent):
            writable = not os.path.lexists(self.file) or account.is_writable(self.file.parent)
        if not writable:
            raise ConfigError(f"{self.file}: its folder is not writable", hint=self._elsewhere())

    def preflight(self) -> None:
        """Start a unit that ends at once, from a file like the service's. Raises `PreflightRefused`."""
        self.sweep()
        job = self._probe()
        if os.path.lexists(job.file):
            raise PreflightRefused(f"{job.file} is another service's", hint="set deploy.label to another name")
        like = self.render(Definition(program=Path("/bin/sh"), log=Path("/dev/null")))
        said = ""
        try:
            try:
                records.write_bytes(job.file, unitfile.probe(like), mode=0o644)
                said = job.verified()
                job.must("daemon-reload")
                job.must("start", job.unit)
            finally:
                job.discard()
        except ManagerUnavailable:
            raise
        except ManagerRefused as refused:
            message = f"systemd would not start the service in {self.domain}: {refused.message}{said}"
            raise PreflightRefused(message, hint=refused.hint, code=refused.code) from refused

    def sweep(self) -> None:
        """Stop the preflight's unit and delete its file, wherever they are. A service of that name stays."""
        job = self._probe()
        left = [file for file in job.definitions() if self.runs(file) in ("", "/bin/sh")]
        for one in job.instances() if left else ():
            one.manager.unload()
        for file in left:
            replace(job, file=file).delete()

    def verified(self) -> str:
        """What `systemd-analyze verify` finds fault with, to explain a refusal; empty without it."""
        scope = "--system" if self.domain == account.SYSTEM else "--user"
        words = (*self.analyze, scope, "--man=no", "verify", str(self.file))
        with contextlib.suppress(ToolchainError):
            done = process.capture(words, env={"XDG_RUNTIME_DIR": str(self.runtime)}, check=False, timeout=_VERIFY_S)
            return "".join(f"\n    {line}" for line in done.error_text.splitlines() if self.file.name in line)
        return ""

    def discard(self) -> None:
        """Forget the preflight's unit, whatever state it is in, and delete its file."""
        with contextlib.suppress(ManagerUnavailable):
            self.call("stop", self.unit)
            self.call("reset-failed", self.unit)
        self.delete()

    def _probe(self) -> SystemdManager:
        label = f"{self.label}.preflight"
        return replace(self, label=label, file=self.file.with_name(f"{label}{unitfile.SUFFIX}"))

    def inspect(self) -> ServiceState:
        """The service's state from `systemctl show`."""
        return state_of(self.look())

    def instances(self) -> tuple[Instance, ...]:
        """The service in every domain where its unit is active, with the file that it was loaded from."""
        found: list[Instance] = []
        refusals: list[ManagerUnavailable] = []
        domains = dict.fromkeys((self.domain, *dict(self.folders)))
        for domain in domains:
            try:
                fields = replace(self, domain=domain).look()
            except ManagerUnavailable as error:
                refusals.append(error)
                continue
            if (state := state_of(fields)).loaded:
                file = Path(fields.get("FragmentPath") or self.file)
                found.append(Instance(manager=replace(self, domain=domain, file=file), state=state))
        if len(refusals) == len(domains):
            raise refusals[0]
        return tuple(found)

    def definitions(self) -> tuple[Path, ...]:
        """Every unit file of that name in the folders that systemd reads."""
        folders = (self.file.parent, *(folder for _, folders in self.folders for folder in folders))
        return unitfile.in_folders(self.unit, folders)

    def runs(self, file: Path) -> str:
        """The program of a unit file; empty for a link, whose target may change."""
        return unitfile.program(file)

    def render(self, definition: Definition) -> bytes:
        """The unit file."""
        wanted_by = "multi-user.target" if self.domain == account.SYSTEM else "default.target"
        return unitfile.render(
            definition, label=self.label, home=self._account().home, user=self.user, wanted_by=wanted_by
        )

    def describe(self, data: bytes) -> dict[str, str]:
        """The entries of a unit file: Service.Environment.HOME."""
        return unitfile.entries(data)

    def user_of(self, data: bytes) -> str:
        """The account that a system unit's file names."""
        return unitfile.entries(data).get("Service.User", "")

    def install(self, definition: Definition) -> None:
        """Write the unit file. A link there is a mask, and stays."""
        if self.file.is_symlink():
            raise self._masked()
        records.write_bytes(self.file, self.render(definition), mode=0o644)

    def digest(self) -> str:
        """SHA-256 of the unit file; empty if there is none."""
        return records.sha256_file(self.file) if self.file.is_file() else ""

    def delete(self) -> None:
        """Delete the unit file with the link that enables it, and have systemd forget it, if that answers."""
        with account.keeping(self.file.parent):
            for link in self.file.parent.glob(f"*.wants/{self.unit}"):
                if link.is_symlink():
                    link.unlink(missing_ok=True)
            self.file.unlink(missing_ok=True)
        with contextlib.suppress(ManagerUnavailable):
            self.call("daemon-reload")

    def restart(self) -> bool:
        """End the process and start another; load the service first if it is not loaded.

        `systemctl restart` does not say whether it had to kill. So the process gets SIGTERM and its time first; systemd
        starts the next one by itself if this process dies meanwhile. Returns whether SIGTERM was enough.
        """
        fields = self.look()
        before = state_of(fields)
        if not before.loaded or fields.get("NeedDaemonReload") == "yes":
            self.reload()
            return True
        ended = not before.running or self._terminate(before)
        if not ended:
            self.call("kill", "--signal=SIGKILL", self.unit)
        if self.inspect().pid in (0, before.pid):
            self._start("restart")
        return ended

    def _terminate(self, before: ServiceState) -> bool:
        """Send SIGTERM to the process, and wait until it has ended. False when it still runs after its time."""
        done = self.call("kill", "--kill-who=main", "--signal=SIGTERM", self.unit)
        if done.returncode and self.inspect().pid == before.pid:
            raise self.refused(done, ("kill", self.unit))
        return has_ended(self, before, unitfile.STOP_S)

    def _start(self, verb: str) -> None:
        """Start it now. A unit that failed, as one that was started too often, must be reset first."""
        if self.look().get("ActiveState") == "failed":
            self.call("reset-failed", self.unit)
        self.must(verb, self.unit)

    def reload(self) -> None:
        """Have systemd read the unit file, enable it, and restart the unit."""
        self.must("daemon-reload")
        self._refuse_overrides()
        fields = self.look()
        if fields.get("LoadState") != "loaded":
            why = fields.get("LoadError", "").strip('" ')
            raise ManagerRefused(
                f"{self.target}: systemd does not load {self.file}: {fields.get('LoadState')} {why}{self.verified()}",
                hint=f"`systemd-analyze verify {self.file}`",
            )
        if os.path.realpath(fields.get("FragmentPath", "")) != os.path.realpath(self.file):
            raise ManagerRefused(
                f"{self.target}: systemd reads {fields.get('FragmentPath')}, which comes before {self.file}",
                hint="remove that file, or set deploy.label to another name",
            )
        self.must("enable", self.unit)
        self._start("restart")

    def unload(self) -> None:
        """Stop the unit, disable it and forget its failures. Returns when its processes have ended."""
        if state_of(self.look()).loaded:
            self.must("stop", self.unit)
        self.call("disable", self.unit)
        self.call("reset-failed", self.unit)

    def _refuse_overrides(self) -> None:
        """Raises `ManagerRefused` when the unit is masked, or when a drop-in makes it another service."""
        if self.look().get("LoadState") == "masked":
            raise self._masked()
        for path, changed in self._drop_ins().items():
            if decisive := [name for name in changed if name in _DECISIVE]:
                raise ManagerRefused(
                    f"{self.target}: the drop-in {path} changes {', '.join(decisive)}",
                    hint=f"`{self.words} revert {self.unit}`, or take that out of the drop-in",
                )

    def _drop_ins(self) -> dict[Path, tuple[str, ...]]:
        """The drop-ins of this unit alone, each with what it sets. Raises `ManagerUnavailable`."""
        folders = (self.file.parent, *dict(self.folders).get(self.domain, ()))
        return unitfile.drop_ins(self.unit, self.look().get("DropInPaths", ""), folders)

    def _masked(self) -> ManagerRefused:
        return ManagerRefused(
            f"{self.target} is masked: {self.file} is a link, or another folder masks it",
            hint=f"`{self.words} unmask {self.unit}`, if you agree; `{self.words} cat {self.unit}` shows where",
        )

    def _elsewhere(self) -> str:
        if self.domain == account.SYSTEM:
            return "run it with sudo; where /etc is read-only: --set deploy.domain=user"
        return "it must belong to the service's user"

    def _account(self) -> Account:
        return account.known(self.account)
