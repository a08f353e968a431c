"""The steps of a deploy from the swap on, each harmless when repeated; attempt.py runs them."""

from __future__ import annotations

import contextlib
import datetime
import os
import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from ..build import release as built
from ..core import records, variables
from ..core.config import Config
from ..core.console import Console
from ..core.errors import ConfigError, ServiceConflict, ToolchainError
from ..service import managers
from ..service.manager import Definition, Instance, Manager
from ..service.unit import StartedUnit, Unit
from ..stages import Release
from . import (
    crashloop,
    environment,
    failure,
    health,
    installed,
    ownership,
    port,
    processes,
    restorepoint,
    shim,
    store,
)
from .journal import Journal
from .prefix import SHIM_NAME, Prefix


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
    """Every place where this prefix's service is loaded, as it is configured and as it was registered."""
    return tuple(one for one in _labelled(deploy) if _is_ours(deploy, one.state.program))


def _labelled(deploy: Deploy) -> tuple[Instance, ...]:
    """Every place where something is loaded under the label, whatever it runs."""
    old = former(deploy)
    found = (*deploy.manager.instances(), *(old.instances() if old else ()))
    return tuple({one.place: one for one in reversed(found)}.values())[::-1]


def others(deploy: Deploy) -> tuple[Instance, ...]:
    """Those that are not the configured place: loaded by a login, or by an earlier configuration."""
    return tuple(one for one in instances(deploy) if not _is_configured(deploy, one))


def leave_only(deploy: Deploy, manager: Manager) -> None:
    """Unload the service wherever it is loaded, but for the place of `manager`."""
    for one in instances(deploy):
        if one.place != (manager.registration.manager, manager.target):
            deploy.console.note(f"{one.manager.target} is replaced by {manager.target}")
            one.manager.unload()


def definitions(deploy: Deploy) -> tuple[Manager, ...]:
    """Every definition file of this prefix's service but the configured one, as the service that it defines."""
    own = Path(deploy.manager.registration.file).resolve()
    return tuple(one for one in _defined(deploy) if _file(one).resolve() != own and _is_ours(deploy, _runs(one)))


def _defined(deploy: Deploy) -> tuple[Manager, ...]:
    """Every definition file of the label, as the service that it defines, whatever it runs."""
    found = {
        file.resolve(): one.adopt(replace(one.registration, file=str(file)))
        for one in (deploy.manager, former(deploy))
        if one
        for file in one.definitions()
    }
    return tuple(found.values())


def foreign(deploy: Deploy) -> dict[str, str]:
    """What has the label and is not this prefix's service: what is said of it, with its program."""
    found = {f"{one.manager.target} is loaded and": one.state.program for one in _labelled(deploy)}
    found |= {str(_file(one)): _runs(one) for one in _defined(deploy)}
    return {f"{what} runs {runs}": runs for what, runs in found.items() if not _is_ours(deploy, runs)}


def check_label(deploy: Deploy) -> None:
    """Raises `ServiceConflict` when the label belongs to another service, as to that of another prefix."""
    if not (found := foreign(deploy)):
        return
    program = Path(next(iter(found.values())))
    removal = "remove it"
    if program.name == SHIM_NAME:
        removal = f"remove it with --set deploy.prefix={shlex.quote(str(program.parents[1]))} deploy.uninstall"
    raise ServiceConflict(
        f"the label belongs to another service: {'; '.join(found)}, not {deploy.prefix.shim}",
        hint=f"set deploy.label to another one, or {removal}",
    )


def _is_ours(deploy: Deploy, program: str) -> bool:
    """Whether a program is the shim, or one that a manager does not tell, so that nothing contradicts it."""
    return not program or os.path.realpath(program) == os.path.realpath(deploy.prefix.shim)


def _file(one: Manager) -> Path:
    return Path(one.registration.file)


def _runs(one: Manager) -> str:
    return one.runs(_file(one))


def delete_configured(deploy: Deploy) -> None:
    """Delete the configured definition file, unless it is another service's."""
    if owns_configured(deploy):
        deploy.manager.delete()


def owns_configured(deploy: Deploy) -> bool:
    """Whether the configured definition file, if there is one, is not another service's."""
    return _is_ours(deploy, _runs(deploy.manager))


def require_rights(deploy: Deploy) -> None:
    """Raises `ConfigError` when the caller may not change all that an operation would change."""
    loaded = tuple(one.manager for one in instances(deploy))
    for one in (deploy.manager, *loaded, *definitions(deploy)):
        one.require_rights()


def is_loaded_as_configured(deploy: Deploy) -> bool:
    """Whether the definition is installed and loaded, so that nothing new is asked of the manager."""
    manager, known = deploy.manager, installed.read(deploy.prefix)
    wanted = records.sha256_bytes(manager.render(deploy.definition))
    if former(deploy) or not manager.digest() == wanted == known.unit_sha256:
        return False
    return any(_is_configured(deploy, one) for one in instances(deploy))


def _is_configured(deploy: Deploy, one: Instance) -> bool:
    return one.place == (deploy.manager.registration.manager, deploy.manager.target)


def former(deploy: Deploy, state: installed.InstallState | None = None) -> Manager | None:
    """The service as it was registered, if it is configured otherwise now: label, domain, file or manager.

    `state` is the one to look at instead of the present one.
    """
    known, ours = (state or installed.read(deploy.prefix)).registration(), deploy.manager.registration
    if not known or known == replace(ours, manager=known.manager and ours.manager):
        return None
    try:
        return managers.registered(known, deploy.config.deploy, deploy.prefix.folder)
    except ConfigError:
        return None  # a manager that this machine does not have


def start(deploy: Deploy, identifier: str) -> None:
    """Swap, restart and check. Raises `Unhealthy`, and what the manager raises."""
    journal = deploy.journal
    journal.begin_step("swap")
    crashloop.forget(deploy.prefix)
    store.show_environment(identifier, deploy.prefix, deploy.manager.account)
    store.swap(identifier, deploy.prefix)
    journal.begin_step("unit")
    check_label(deploy)
    deploy.manager.install(deploy.definition)
    journal.begin_step("restart")
    rotate_log(deploy)
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
        temporary=deploy.prefix.temporary,
    )
    folder = deploy.prefix.release(identifier)
    health.check(deploy.unit, started, deploy.manager, folder, deploy.config.deploy, deploy.console, stop=stop)


def _load_and_restart(deploy: Deploy) -> None:
    """Restart, or unload and load if the loaded definition is not the installed one."""
    manager, prefix = deploy.manager, deploy.prefix
    for done in (failure.log_folder(prefix), failure.log_file(deploy.log)):
        if done:
            deploy.console.warn(done)
    ownership.prepare_logs(prefix, deploy.log, manager.account)
    known, digest = installed.read(prefix), manager.digest()
    leave_only(deploy, manager)  # first: one that waits would take over while ours is restarted
    for left in definitions(deploy):
        left.delete()
    end_strays(deploy)  # one that holds the port must not be in the way
    if digest and known.unit_sha256 == digest and not former(deploy):
        manager.restart()
        end_strays(deploy)
        return
    manager.reload()
    end_strays(deploy)
    installed.write(prefix, known.registered(manager.registration, digest))


def _unload(deploy: Deploy) -> None:
    """Unload the service and delete its definition, wherever they are. Raises `DomainUnavailable` if it still runs."""
    for one in instances(deploy):
        one.manager.unload()
    deploy.manager.sweep()
    pid, holder = port.stray(deploy.config.deploy, deploy.prefix), shim.holder(deploy.prefix)
    if pid and holder in port.lineage(pid):  # the service itself, and not what a release left behind
        raise port.unlisted(pid, deploy.config.deploy.port, deploy.prefix)
    end_strays(deploy)
    for left in definitions(deploy):
        left.delete()
    delete_configured(deploy)


def end_strays(deploy: Deploy, manager: Manager | None = None) -> None:
    """End what runs out of a release of this prefix and is not the service, which is `manager`'s, else deploy's."""
    spare = manager or deploy.manager
    processes.end_of(deploy.prefix, deploy.console, spare=lambda: spare.inspect().pid)


def bless(deploy: Deploy) -> None:
    """Record that the release is healthy: from now on it is the one to go back to."""
    entry, prefix = deploy.journal.entry, deploy.prefix
    known = installed.read(prefix)
    for release in known.releases:  # the shim may fall back to one, as the present user
        store.show_environment(release.id, prefix, deploy.manager.account)
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
    installed.name_parent(prefix, entry.release, parent)
    installed.write(prefix, known.blessed(blessed))
    installed.write_own(prefix, blessed)


def dismantle(deploy: Deploy) -> None:
    """Clean up a failed first install: no crashing service, no link to a broken release."""
    _unload(deploy)
    deploy.prefix.current.unlink(missing_ok=True)
    shutil.rmtree(deploy.prefix.run, ignore_errors=True)
    if deploy.prefix.state.is_dir():
        store.set_aside(deploy.prefix.state)
    deploy.prefix.state.unlink(missing_ok=True)
    tidy(deploy)


def rotate_log(deploy: Deploy) -> None:
    """Rotate the service's log if it is large, as the shim does, which waits while a deploy is in progress."""
    if deploy.manager.account != deploy.manager.owner:
        return  # the daemon's user writes there, and could make root write through a link: the shim alone rotates
    with contextlib.suppress(OSError, ToolchainError):  # a full disk: the shim tries again
        shim.rotate(deploy.log, deploy.config.deploy)


def log_size(deploy: Deploy) -> int:
    """Present size of the service's log, in bytes."""
    return deploy.log.stat().st_size if deploy.log.exists() else 0


def remove_everything(deploy: Deploy) -> None:
    """Uninstall: unload the service, then delete its definition and the prefix, except for its logs."""
    prefix, journal = deploy.prefix, deploy.journal
    journal.begin_step("unload")
    _unload(deploy)
    journal.begin_step("remove")
    prefix.current.unlink(missing_ok=True)
    store.sweep(set(), prefix)
    for folder in (prefix.releases, prefix.shim.parent, prefix.run):
        shutil.rmtree(folder, ignore_errors=True)
    prefix.state.unlink(missing_ok=True)
    restorepoint.clear(prefix)
    store.forget(prefix)
    journal.clear()
