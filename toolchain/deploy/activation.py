"""Making a release active, and rolling back if it is unhealthy: the steps from the swap on.

install, rollback and their recovery run the same steps, so that a killed deploy continues as it would have.
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
    """The context of every step."""

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
        """The service's definition. It changes only with the configuration, never with the release."""
        return Definition(program=self.prefix.shim, log=self.log)

    def manifest(self, identifier: str) -> Release:
        """The manifest of an installed release."""
        return built.load(self.prefix.release(identifier))


def activate(deploy: Deploy) -> None:
    """Swap, restart, check, bless, prune: make the journal's release the active one.

    If it is unhealthy, its log is saved and the previous release is restored: raises `RolledBack`, or `Unhealthy` if
    there is none or if that one is unhealthy, too.
    """
    entry = deploy.journal.entry
    try:
        _start(deploy, entry.release)
    except DomainUnavailable:
        raise  # health unknown: the journal stays, so that a later command decides
    except ToolchainError as failure:  # also the manager's: the old service must come back after any failure
        log = _capture_log(deploy)
        restore(deploy, failure, log)
    finish(deploy)


def finish(deploy: Deploy) -> None:
    """The remaining steps for a healthy release."""
    deploy.journal.begin_step("bless")
    _bless(deploy)
    deploy.journal.begin_step("prune")
    prune(deploy)
    deploy.journal.clear()


def restore(deploy: Deploy, failure: ToolchainError, log: Path) -> None:
    """Restore the previous release. Always raises: `RolledBack`, or `Unhealthy` if no healthy release is left."""
    journal, entry, prefix = deploy.journal, deploy.journal.entry, deploy.prefix
    journal.begin_step(RESTORE)
    found = f"release {entry.release}: {failure.message}\n  its log: {log}"
    if not entry.previous:
        _dismantle(deploy)
        journal.clear()
        raise Unhealthy(
            f"{found}\n  there is no previous release; the service is stopped and unloaded", hint=f"read {log}"
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
        # It was healthy once and the manager keeps restarting it. Stopping it would only make things worse.
        tidy(deploy)
        journal.clear()
        raise Unhealthy(
            f"{found}\n  release {entry.previous}, which is active again, is unhealthy, too: {second.message}",
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
    """Delete everything in releases/ that is neither active nor in the state."""
    known = {one.id for one in installed.read(deploy.prefix).releases}
    store.sweep(known | {deploy.prefix.active()}, deploy.prefix)


def former(deploy: Deploy) -> Manager | None:
    """The loaded service, if the configuration now has another label, domain or file for it."""
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
        temporary=deploy.prefix.temporary,
    )
    health.check(deploy.unit, started, deploy.manager, deploy.config.deploy, deploy.console)


def _load_and_restart(deploy: Deploy) -> None:
    """Restart, or unload and load if the loaded definition is not the installed one."""
    manager, prefix = deploy.manager, deploy.prefix
    records.make_folder(prefix.logs)
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
    records.write(prefix.release(blessed.id) / installed.OWN_RECORD, blessed)


def _dismantle(deploy: Deploy) -> None:
    """Clean up a failed first install: no crashing service, no link to a broken release."""
    _remove(deploy.manager)
    deploy.prefix.current.unlink(missing_ok=True)
    deploy.prefix.state.unlink(missing_ok=True)
    tidy(deploy)


def _capture_log(deploy: Deploy) -> Path:
    """Save the service's log since the release was started, before a rollback adds to it."""
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
    """Uninstall: unload the service, then delete its definition and the prefix, except for its logs."""
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
    store.forget(prefix)
    journal.clear()
