"""The steps of a deploy from the swap on, each harmless when repeated; attempt.py runs them."""

from __future__ import annotations

import datetime
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..build import release as built
from ..core import records, variables
from ..core.config import Config
from ..core.console import Console
from ..service.manager import Definition, Manager
from ..service.unit import StartedUnit, Unit
from ..stages import Release
from . import environment, failure, health, installed, processes, restorepoint, store
from .journal import Journal
from .prefix import Prefix


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
        return records.read(self.prefix.release(identifier) / built.MANIFEST, Release)


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


def start(deploy: Deploy, identifier: str) -> None:
    """Swap, restart and check. Raises `Unhealthy`, and what the manager raises."""
    journal = deploy.journal
    journal.begin_step("swap")
    store.swap(identifier, deploy.prefix)
    journal.begin_step("unit")
    deploy.manager.install(deploy.definition)
    journal.begin_step("restart")
    journal.note(log_offset=log_size(deploy))
    _load_and_restart(deploy)
    journal.begin_step("health")
    check_health(deploy, identifier, journal.entry.log_offset)


def check_health(deploy: Deploy, identifier: str, log_offset: int, *, stop: bool = True) -> None:
    """Check a release that was started when the log had that size, with `stop` also how it ends. Raises `Unhealthy`."""
    started = StartedUnit(
        release=deploy.manifest(identifier),
        environment=environment.read(deploy.prefix.release(identifier)),
        log=deploy.log,
        log_offset=log_offset,
    )
    folder = deploy.prefix.release(identifier)
    health.check(deploy.unit, started, deploy.manager, folder, deploy.config.deploy, deploy.console, stop=stop)


def _load_and_restart(deploy: Deploy) -> None:
    """Restart, or unload and load if the loaded definition is not the installed one."""
    manager, prefix = deploy.manager, deploy.prefix
    for done in (failure.log_folder(prefix), failure.log_file(deploy.log)):
        if done:
            deploy.console.warn(done)
    if manager.user and os.geteuid() == 0:
        shutil.chown(prefix.logs, manager.user)
    known, old = installed.read(prefix), former(deploy)
    digest = manager.digest()
    end_strays(deploy, manager)  # one that holds the port must not be in the way
    if old:
        deploy.console.note(f"{old.target} is replaced by {manager.target}")
        remove(old, keep=manager.registration.file)
    elif digest and known.unit_sha256 == digest:
        manager.restart()
        end_strays(deploy, manager)
        return
    manager.reload()
    end_strays(deploy, manager)
    installed.write(prefix, known.registered(manager.registration, digest))


def end_strays(deploy: Deploy, manager: Manager) -> None:
    """End what runs out of a release of this prefix and is not the service."""
    processes.end_of(deploy.prefix, console=deploy.console, spare=lambda: manager.inspect().pid)


def remove(manager: Manager, *, keep: str = "") -> None:
    """Unload a service, and delete its definition unless that is the file to keep."""
    manager.unload()
    if manager.registration.file != keep:
        manager.delete()


def bless(deploy: Deploy) -> None:
    """Record that the release is healthy: from now on it is the one to go back to."""
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
        installed=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        environment=variables.all_masked(environment.read(prefix.release(entry.release))),
    )
    installed.write(prefix, known.blessed(blessed))


def dismantle(deploy: Deploy) -> None:
    """Clean up a failed first install: no crashing service, no link to a broken release."""
    remove(deploy.manager)
    end_strays(deploy, deploy.manager)
    deploy.prefix.current.unlink(missing_ok=True)
    if deploy.prefix.state.is_dir():
        restorepoint.set_aside(deploy.prefix.state)
    deploy.prefix.state.unlink(missing_ok=True)
    tidy(deploy)


def log_size(deploy: Deploy) -> int:
    """Present size of the service's log, in bytes."""
    return deploy.log.stat().st_size if deploy.log.exists() else 0


def remove_everything(deploy: Deploy) -> None:
    """Uninstall: unload the service, then delete its definition and the prefix, except for its logs."""
    prefix, journal = deploy.prefix, deploy.journal
    journal.begin_step("unload")
    for manager in (former(deploy), deploy.manager):
        if manager:
            remove(manager)
    end_strays(deploy, deploy.manager)
    journal.begin_step("remove")
    prefix.current.unlink(missing_ok=True)
    store.sweep(set(), prefix)
    for folder in (prefix.releases, prefix.shim.parent):
        shutil.rmtree(folder, ignore_errors=True)
    prefix.state.unlink(missing_ok=True)
    restorepoint.clear(prefix)
    journal.clear()
