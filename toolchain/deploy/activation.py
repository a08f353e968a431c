"""Making a release active, and rolling back if it is unhealthy: the steps from the swap on.

install, rollback and their recovery run the same steps, so that a killed deploy continues as it would have.
"""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from ..build import release as built
from ..core import records
from ..core.config import Config
from ..core.console import Console
from ..core.errors import ConfigError, DomainUnavailable, RolledBack, ToolchainError, Unhealthy
from ..service import managers
from ..service.manager import Definition, Instance, Manager
from ..service.unit import StartedUnit, Unit
from ..stages import Release
from . import environment, health, installed, ownership, port, store
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
        return records.read(self.prefix.release(identifier) / built.MANIFEST, Release)


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


def instances(deploy: Deploy) -> tuple[Instance, ...]:
    """Every place where the service is loaded, as it is configured and as it was registered."""
    old = _former(deploy)
    found = (*deploy.manager.instances(), *(old.instances() if old else ()))
    return tuple({one.place: one for one in reversed(found)}.values())[::-1]


def others(deploy: Deploy) -> tuple[Instance, ...]:
    """Those that are not the configured place: loaded by a login, or by an earlier configuration."""
    return tuple(one for one in instances(deploy) if not _is_configured(deploy, one))


def definitions(deploy: Deploy) -> tuple[Manager, ...]:
    """Every definition file of the service that is not the configured one, as the service that it defines."""
    own = Path(deploy.manager.registration.file).resolve()
    found = {
        file.resolve(): one.adopt(replace(one.registration, file=str(file)))
        for one in (deploy.manager, _former(deploy))
        if one
        for file in one.definitions()
    }
    return tuple(one for file, one in found.items() if file != own)


def require_rights(deploy: Deploy) -> None:
    """Raises `ConfigError` when the caller may not change all that an operation would change."""
    loaded = tuple(one.manager for one in instances(deploy))
    for one in (deploy.manager, *loaded, *definitions(deploy)):
        one.require_rights()


def is_loaded_as_configured(deploy: Deploy) -> bool:
    """Whether the definition is installed and loaded, so that nothing new is asked of the manager."""
    manager, known = deploy.manager, installed.read(deploy.prefix)
    wanted = records.sha256_bytes(manager.render(deploy.definition))
    if _former(deploy) or not manager.digest() == wanted == known.unit_sha256:
        return False
    return any(_is_configured(deploy, one) for one in manager.instances())


def _is_configured(deploy: Deploy, one: Instance) -> bool:
    return one.place == (deploy.manager.registration.manager, deploy.manager.target)


def _former(deploy: Deploy) -> Manager | None:
    """The service as it was registered, if it is configured otherwise now: label, domain, file or manager."""
    known, ours = installed.read(deploy.prefix).registration(), deploy.manager.registration
    if not known or known == replace(ours, manager=known.manager and ours.manager):
        return None
    try:
        return managers.registered(known, deploy.config.deploy, deploy.prefix.folder)
    except ConfigError:
        return None  # a manager that this machine does not have


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
    """Restart, or unload and load if the loaded definition is not the installed one."""
    manager, prefix = deploy.manager, deploy.prefix
    ownership.prepare_logs(prefix, deploy.log, manager.account)
    known, digest = installed.read(prefix), manager.digest()
    for other in others(deploy):  # first: one that waits would take over while ours is restarted
        deploy.console.note(f"{other.manager.target} is replaced by {manager.target}")
        other.manager.unload()
    for left in definitions(deploy):
        left.delete()
    if digest and known.unit_sha256 == digest and not _former(deploy):
        manager.restart()
        return
    manager.reload()
    installed.write(prefix, known.registered(manager.registration, digest))


def _unload(deploy: Deploy) -> None:
    """Unload the service and delete its definition, wherever they are. Raises `DomainUnavailable` if it still runs."""
    for one in instances(deploy):
        one.manager.unload()
    deploy.manager.sweep()
    if pid := port.stray(deploy.config.deploy, deploy.prefix):
        raise port.unlisted(pid, deploy.config.deploy.port, deploy.prefix)
    for left in (deploy.manager, *definitions(deploy)):
        left.delete()


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
    """Clean up a failed first install: no crashing service, no link to a broken release."""
    _unload(deploy)
    deploy.prefix.current.unlink(missing_ok=True)
    deploy.prefix.state.unlink(missing_ok=True)
    tidy(deploy)


def _capture_log(deploy: Deploy) -> Path:
    """Save the service's log since the release was started, before a rollback adds to it."""
    entry, prefix = deploy.journal.entry, deploy.prefix
    target = prefix.logs / f"failed-{entry.release}-{_now():%Y%m%dT%H%M%SZ}.log"
    data = b""
    if deploy.log.exists():
        with ownership.open_log(deploy.log) as file:
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
    _unload(deploy)
    journal.begin_step("remove")
    prefix.current.unlink(missing_ok=True)
    store.sweep(set(), prefix)
    for folder in (prefix.releases, prefix.shim.parent, prefix.claims):
        shutil.rmtree(folder, ignore_errors=True)
    prefix.state.unlink(missing_ok=True)
    journal.clear()
