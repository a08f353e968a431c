"""Making a release the active one, and going back when it is not healthy: the steps from the swap on.

install, rollback and the recovery of either run the same steps, so that a deploy that was killed goes on exactly
as it would have.
"""

from __future__ import annotations

import datetime
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..build import release as built
from ..core import records
from ..core.config import Config
from ..core.console import Console
from ..core.errors import DomainUnavailable, RolledBack, ToolchainError, Unhealthy
from ..service.manager import Definition, Manager
from ..service.unit import StartedUnit, Unit
from ..stages import Release
from . import environment, health, installed, store
from .journal import RESTORE, Journal
from .prefix import Prefix

_CAPTURE_BYTES = 1 << 20
_TAIL_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """What every step needs."""

    config: Config
    prefix: Prefix
    manager: Manager
    unit: Unit
    journal: Journal
    console: Console

    @property
    def log(self) -> Path:
        """stdout and stderr of the service."""
        return self.prefix.logs / self.unit.log

    @property
    def definition(self) -> Definition:
        """What the manager is told. It changes only with the configuration, never with the release."""
        return Definition(program=self.prefix.shim, log=self.log)

    def manifest(self, identifier: str) -> Release:
        """The manifest of an installed release."""
        return records.read(self.prefix.release(identifier) / built.MANIFEST, Release)


def activate(deploy: Deploy) -> None:
    """Swap, restart, check, bless, prune: make the journal's release the active one.

    When it is not healthy, its log is captured and the release before comes back: raises `RolledBack`, or
    `Unhealthy` when there is none or that one is not healthy either.
    """
    entry = deploy.journal.entry
    try:
        _start(deploy, entry.release)
    except DomainUnavailable:
        raise  # nobody can tell how the release is; the journal stays for a command that can
    except ToolchainError as failure:  # the manager's refusals too: whatever happened, the old service must come back
        log = _capture_log(deploy)
        restore(deploy, failure, log)
    finish(deploy)


def finish(deploy: Deploy) -> None:
    """What remains to be done for a release that was found healthy."""
    deploy.journal.begin_step("bless")
    _bless(deploy)
    deploy.journal.begin_step("prune")
    prune(deploy)
    deploy.journal.clear()


def restore(deploy: Deploy, failure: ToolchainError, log: Path) -> None:
    """Bring back what was active before. Always raises: `RolledBack`, or `Unhealthy` when nothing healthy is left."""
    journal, entry, prefix = deploy.journal, deploy.journal.entry, deploy.prefix
    journal.begin_step(RESTORE)
    found = f"release {entry.release}: {failure.message}\n  its log: {log}"
    if not entry.previous:
        _dismantle(deploy)
        journal.clear()
        raise Unhealthy(
            f"{found}\n  there was no release before it; the service is stopped and unloaded", hint=f"read {log}"
        ) from failure
    deploy.console.warn(f"{failure.message}; going back to {entry.previous}")
    if entry.environment_before is not None:
        store.write_environment(entry.release, entry.environment_before, prefix)
    store.swap(entry.previous, prefix)
    try:
        offset = _log_size(deploy)
        _load_and_restart(deploy)
        _check_health(deploy, entry.previous, offset)
    except ToolchainError as second:
        # It was healthy once and the manager keeps it alive; taking it down as well would only make things worse.
        tidy(deploy)
        journal.clear()
        raise Unhealthy(
            f"{found}\n  release {entry.previous}, which is active again, is not healthy either: {second.message}",
            hint="./inv deploy.logs shows why; ./inv deploy.rollback --to names an older release",
        ) from failure
    current = installed.read(prefix)
    if current.active != entry.previous:
        installed.write(prefix, current.activated(entry.previous))
    tidy(deploy)
    journal.clear()
    raise RolledBack(
        f"{found}\n  rolled back: release {entry.previous} is active and healthy", hint=f"read {log}"
    ) from failure


def prune(deploy: Deploy) -> tuple[str, ...]:
    """Delete the oldest releases above deploy.keep, never the active one or its parent. Returns their ids."""
    known = installed.read(deploy.prefix)
    protected = {known.active, known.parent()}
    spare = [one.id for one in known.releases if one.id not in protected]
    surplus = max(0, len(known.releases) - deploy.config.deploy.keep)
    doomed = tuple(spare[:surplus])
    if doomed:
        installed.write(deploy.prefix, known.without(set(doomed)))
    tidy(deploy)
    return doomed


def tidy(deploy: Deploy) -> None:
    """Delete from releases/ whatever is neither active nor known to the state."""
    known = {one.id for one in installed.read(deploy.prefix).releases}
    store.sweep(known | {deploy.prefix.active()}, deploy.prefix)


def former(deploy: Deploy) -> Manager | None:
    """The service as it was loaded, when the configuration now gives it another label, domain or file."""
    known = installed.read(deploy.prefix).registration()
    return deploy.manager.adopt(known) if known and known != deploy.manager.registration else None


def _start(deploy: Deploy, identifier: str) -> None:
    journal = deploy.journal
    journal.begin_step("swap")
    store.swap(identifier, deploy.prefix)
    journal.begin_step("unit")
    deploy.manager.install(deploy.definition)
    journal.begin_step("restart")
    journal.note(log_offset=_log_size(deploy))
    _load_and_restart(deploy)
    journal.begin_step("health")
    _check_health(deploy, identifier, journal.entry.log_offset)


def _check_health(deploy: Deploy, identifier: str, log_offset: int) -> None:
    started = StartedUnit(
        release=deploy.manifest(identifier),
        environment=environment.read(deploy.prefix.release(identifier)),
        log=deploy.log,
        log_offset=log_offset,
    )
    health.check(deploy.unit, started, deploy.manager, deploy.config.deploy, deploy.console)


def _load_and_restart(deploy: Deploy) -> None:
    """A restart, or unloading and loading when the manager has loaded another definition than the installed one."""
    manager, prefix = deploy.manager, deploy.prefix
    prefix.logs.mkdir(parents=True, exist_ok=True)
    if manager.user and os.geteuid() == 0:
        shutil.chown(prefix.logs, manager.user)
    known, old = installed.read(prefix), former(deploy)
    digest = manager.digest()
    if old:
        deploy.console.note(f"{old.target} is replaced by {manager.target}")
        _remove(old, keep=manager.registration.file)
    elif digest and known.unit_sha256 == digest:
        manager.restart()
        return
    manager.reload()
    installed.write(prefix, known.registered(manager.registration, digest))


def _remove(manager: Manager, *, keep: str = "") -> None:
    manager.unload()
    if manager.registration.file != keep:
        manager.delete()


def _bless(deploy: Deploy) -> None:
    entry, prefix = deploy.journal.entry, deploy.prefix
    known = installed.read(prefix)
    before = known.find(entry.release)
    if entry.operation == "rollback" and before:
        installed.write(prefix, known.activated(entry.release))
        return
    parent = entry.previous if entry.previous != entry.release else (before.parent if before else "")
    blessed = installed.InstalledRelease(
        id=entry.release,
        parent=parent,
        version=deploy.manifest(entry.release).version,
        installed=_now().isoformat(timespec="seconds"),
    )
    installed.write(prefix, known.blessed(blessed))


def _dismantle(deploy: Deploy) -> None:
    """After a failed first install: no service that crashes in a loop, no link to a release that does not work."""
    _remove(deploy.manager)
    deploy.prefix.current.unlink(missing_ok=True)
    deploy.prefix.state.unlink(missing_ok=True)
    tidy(deploy)


def _capture_log(deploy: Deploy) -> Path:
    """Save what the service logged since the release was started, before a rollback writes over the trail."""
    entry, prefix = deploy.journal.entry, deploy.prefix
    target = prefix.logs / f"failed-{entry.release}-{_now():%Y%m%dT%H%M%SZ}.log"
    data = b""
    if deploy.log.exists():
        with deploy.log.open("rb") as file:
            file.seek(max(entry.log_offset, deploy.log.stat().st_size - _CAPTURE_BYTES))
            data = file.read()
    records.write_bytes(target, data)
    for line in data.decode(errors="replace").splitlines()[-_TAIL_LINES:]:
        deploy.console.note(f"    {line}")
    return target


def _log_size(deploy: Deploy) -> int:
    return deploy.log.stat().st_size if deploy.log.exists() else 0


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def remove_everything(deploy: Deploy) -> None:
    """Uninstall: unload the service, then delete its definition and the prefix but for its logs."""
    prefix, journal = deploy.prefix, deploy.journal
    journal.begin_step("unload")
    for manager in (former(deploy), deploy.manager):
        if manager:
            _remove(manager)
    journal.begin_step("remove")
    prefix.current.unlink(missing_ok=True)
    store.sweep(set(), prefix)
    for folder in (prefix.releases, prefix.shim.parent):
        shutil.rmtree(folder, ignore_errors=True)
    prefix.state.unlink(missing_ok=True)
    journal.clear()
