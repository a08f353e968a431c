"""The steps of a deploy from the swap on, each harmless when repeated; attempt.py runs them."""

from __future__ import annotations

import contextlib
import datetime
import shutil

from ..core import variables
from ..core.errors import ToolchainError
from ..service.manager import Manager
from ..service.unit import StartedUnit
from . import (
    beside,
    crashloop,
    environment,
    failure,
    health,
    installed,
    ownership,
    places,
    port,
    processes,
    reminder,
    restorepoint,
    shim,
    store,
)
from .context import Deploy


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
    beside.sweep(deploy.prefix)


def start(deploy: Deploy, identifier: str) -> None:
    """Swap, restart and check. Raises `Unhealthy`, and what the manager raises."""
    journal = deploy.journal
    journal.begin_step("swap")
    crashloop.forget(deploy.prefix)
    store.show_environment(identifier, deploy.prefix, deploy.manager.account)
    store.swap(identifier, deploy.prefix)
    journal.begin_step("unit")
    places.look(deploy).check_label()
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
    health.check(
        deploy.unit_of(identifier), started, deploy.manager, folder, deploy.config.deploy, deploy.console, stop=stop
    )


def _load_and_restart(deploy: Deploy) -> None:
    """Restart, or unload and load if the loaded definition is not the installed one."""
    manager, prefix = deploy.manager, deploy.prefix
    for done in (failure.log_folder(prefix), failure.log_file(deploy.log)):
        if done:
            deploy.console.warn(done)
    ownership.prepare_logs(prefix, deploy.log, manager.account)
    known, digest = installed.read(prefix), manager.digest()
    found = places.look(deploy)
    found.leave_only(manager)  # first: one that waits would take over while ours is restarted
    for left in found.definitions:
        left.delete()
    end_strays(deploy)  # one that holds the port must not be in the way
    if digest and known.unit_sha256 == digest and not places.former(deploy):
        with reminder.second_signal(manager):
            manager.restart()
        end_strays(deploy)
        return
    with reminder.second_signal(manager):
        manager.reload()
    end_strays(deploy)
    installed.write(prefix, known.registered(manager.registration, digest))


def _unload(deploy: Deploy) -> None:
    """Unload the service and delete its definition, wherever they are. Raises `ManagerUnavailable` if it still runs."""
    found = places.look(deploy)
    for one in found.instances:
        with reminder.second_signal(one.manager):
            one.manager.unload()
    deploy.manager.sweep()
    pid, holder = port.stray(deploy.config.deploy, deploy.prefix), shim.holder(deploy.prefix)
    if pid and holder in port.lineage(pid):  # the service itself, and not what a release left behind
        raise port.unlisted(pid, deploy.config.deploy.port, deploy.prefix)
    end_strays(deploy)
    for left in found.definitions:
        left.delete()
    places.delete_configured(deploy)


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
    for folder in (prefix.releases, *prefix.beside, prefix.shim.parent, prefix.run):
        shutil.rmtree(folder, ignore_errors=True)
    prefix.state.unlink(missing_ok=True)
    restorepoint.clear(prefix)
    store.forget(prefix)
    journal.clear()
