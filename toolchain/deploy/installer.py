"""The operations on an installation: install, rollback, status, prune, uninstall.

Each takes the prefix's lock (status only to repair), and first finishes or undoes an interrupted deploy. The steps of
an install:

    copy -> environment -> shim -> swap -> unit -> restart -> health -> bless -> prune
                                   from here on a failure restores the previous release
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ..build import release as built
from ..core import locks, records
from ..core.config import Config
from ..core.console import Console
from ..core.errors import ConfigError, LockHeld, NothingToRollBackTo, RolledBack, ToolchainError, Unhealthy
from ..core.records import record
from ..service import address, managers, model_store, units
from ..stages import Deployment, DeployWarning, Edit, Verification
from . import (
    activation,
    advice,
    attempt,
    edits,
    environment,
    given,
    installed,
    port,
    proof,
    recovery,
    restorepoint,
    shim,
    store,
)
from .activation import Deploy
from .journal import Journal, JournalEntry
from .prefix import Prefix

_LOCK_WAIT_S = 2.0
"""a program that a killed deployer was starting may briefly hold its lock"""


def install(
    release_dir: Path, config: Config, console: Console, verification: Verification | None = None
) -> Deployment:
    """Install a release directory with its verification and make it the running service.

    Installing the running release changes nothing, except that an unproven one gets its proof. Raises before
    anything is changed: `ReleaseInvalid`, `Unverified`, `ConfigError` (a cache type that the release lacks),
    `ServiceConflict`, `PortInUse`, `LockHeld`, `DiskFull`. Afterwards: `RolledBack` when the release is unhealthy and
    the previous one is restored, `Unhealthy` when there is no healthy one, `LaunchdRefused`, `DomainUnavailable`.
    """
    with console.step("check of the release"):
        release = replace(built.check(release_dir), verification="")
    proven = proof.require(release, verification, config.deploy, console)
    unit = units.choose(config.deploy)
    values = unit.environment(release, config.deploy)
    text = environment.render(values)
    warnings = advice.variables(unit, release_dir, config.deploy)
    model_store.prepare(config.deploy)
    warnings += advice.models(release, config.deploy)
    advice.show(warnings, console)
    host = config.deploy.host
    address.check_local(host)
    if not address.is_loopback(host):
        console.warn(f"deploy.host: {host} is reachable from other machines, and {unit.name} has no authentication")
    with _locked(config, console) as deploy:
        prefix = deploy.prefix
        deploy.manager.check()
        port.check(deploy.manager, activation.former(deploy), unit.competitors, config.deploy)
        previous, same = prefix.active() or installed.read(prefix).active, store.holds(release, prefix)
        before = store.environment_text(release.id, prefix)
        if same and proven and not proof.is_proven(prefix.release(release.id)):
            proof.write(prefix.release(release.id), release, proven)
        if same and before == text and previous == release.id and _runs_as_configured(deploy):
            console.note(f"release {release.id} is already installed and healthy")
            return replace(_look(deploy), warnings=warnings)
        warnings += _kept_edits(deploy, values)
        deploy.journal.begin(
            JournalEntry(
                operation="install",
                step="copy",
                release=release.id,
                previous=previous,
                source="" if same else str(release_dir.absolute()),
                environment_before=before,
            )
        )
        try:
            restorepoint.prepare(prefix, release.id, previous)
            if not same:
                with console.step(f"copy of {release.id}") as step:
                    store.copy_in(release_dir, release, proven, prefix, step)
            deploy.journal.begin_step("environment")
            store.write_environment(release.id, text, prefix)
            deploy.journal.begin_step("shim")
            records.write_bytes(prefix.shim, shim.render(prefix, unit, deploy.manager), mode=0o755)
        except BaseException as error:
            recovery.undo(deploy)
            if not isinstance(error, Exception):
                console.warn(f"interrupted: nothing was changed, release {previous or '(none)'} is active")
            raise
        attempt.activate(deploy)
        return replace(_look(deploy), warnings=warnings)


def rollback(config: Config, console: Console, to: str = "") -> Deployment:
    """Make the active release's parent (or the installed release `to`) the running one, with its own environment.

    Raises `NothingToRollBackTo`, and what `install` raises after its swap.
    """
    with _locked(config, console) as deploy:
        known = installed.read(deploy.prefix)
        target = to or known.parent()
        if not known.find(target):
            ids = ", ".join(one.id for one in known.releases) or "none"
            raise NothingToRollBackTo(
                f"{to}: no such release in {deploy.prefix.folder}"
                if to
                else f"the active release {known.active or '(none)'} has no installed parent",
                hint=f"installed: {ids}",
            )
        built.check(deploy.prefix.release(target))
        warnings = _kept_edits(deploy, environment.read(deploy.prefix.release(target)))
        deploy.journal.begin(JournalEntry(operation="rollback", step="swap", release=target, previous=known.active))
        try:
            restorepoint.prepare(deploy.prefix, target, known.active)
        except BaseException:
            attempt.close(deploy)
            raise
        attempt.activate(deploy)
        return replace(_look(deploy), warnings=warnings)


def status(config: Config, console: Console | None = None) -> Deployment:
    """What is active and whether it is healthy. Finishes or undoes an interrupted deploy first.

    Raises `DomainUnavailable` when the manager is unavailable, so that the state of the service is unknown.
    """
    console = console or Console()
    recover(config, console)
    prefix = Prefix.of(config)
    if not prefix.state.exists() and not prefix.journal.exists():
        return _nothing(prefix)
    return _look(_deploy(config, console))


def recover(config: Config, console: Console) -> None:
    """Finish or undo a deploy that was interrupted. Does nothing while the deploying process is alive."""
    if not Prefix.of(config).journal.exists():
        return
    try:
        with _locked(config, console):
            pass
    except LockHeld as held:
        console.note(held.message)


@record
class ServiceLog:
    """The end of the service's log."""

    log: tuple[str, ...]


def logs(config: Config, lines: int = 50) -> ServiceLog:
    """The last lines of the service's log; empty if it never ran."""
    recover(config, Console())
    path = Prefix.of(config).logs / units.choose(config.deploy).log
    if not path.exists():
        return ServiceLog(log=())
    with path.open(encoding="utf-8", errors="replace") as file:
        return ServiceLog(log=tuple(line.rstrip("\n") for line in deque(file, maxlen=lines)))


def prune(config: Config, console: Console) -> Deployment:
    """Delete old releases: keeps deploy.keep of them, and always the active one and its parent."""
    with _locked(config, console) as deploy:
        for gone in activation.prune(deploy):
            console.note(f"deleted release {gone}")
        return _look(deploy)


def uninstall(config: Config, console: Console) -> Deployment:
    """Stop the service and delete it with its releases. The logs and the models stay."""
    with _locked(config, console) as deploy:
        active = deploy.prefix.active()
        deploy.journal.begin(JournalEntry(operation="uninstall", step="unload", release="", previous=active))
        activation.remove_everything(deploy)
        return _nothing(deploy.prefix)


def _deploy(config: Config, console: Console) -> Deploy:
    prefix = Prefix.of(config)
    return Deploy(
        config=config,
        prefix=prefix,
        manager=managers.choose(config.deploy, prefix.folder, loaded_in=installed.read(prefix).domain),
        unit=units.choose(config.deploy),
        journal=Journal(prefix.journal),
        console=console,
    )


@contextmanager
def _locked(config: Config, console: Console) -> Iterator[Deploy]:
    """Hold the prefix's lock, after an interrupted deploy was finished or undone. Raises `LockHeld`."""
    prefix = Prefix.of(config)
    busy = f"{prefix.folder}: another deploy is in progress"
    with ExitStack() as stack:
        try:
            lock = locks.held(prefix.lock, busy, hint="wait until it ends", timeout_s=_LOCK_WAIT_S)
            stack.enter_context(lock)
        except OSError as error:
            raise ConfigError(
                f"deploy.prefix: {prefix.folder} cannot be used: {error.strerror}",
                hint="name a folder that you can write to",
            ) from error
        deploy = _deploy(config, console)
        try:
            recovery.recover(deploy)
        except (RolledBack, Unhealthy) as outcome:
            console.warn(f"the interrupted deploy was undone: {outcome.message}")
        try:
            yield _deploy(config, console)
        except (KeyboardInterrupt, SystemExit):
            if prefix.journal.exists():
                console.warn("interrupted: the next deploy command, such as deploy.status, finishes or undoes it")
            raise


def given_environment(config: Config, console: Console) -> given.GivenEnvironment:
    """What the service is given. Raises as `status` does, and `ReleaseInvalid` for a file that cannot be read."""
    found = status(config, console)
    return given.look(config, Prefix.of(config), units.choose(config.deploy), found.pid, found.edits)


def _kept_edits(deploy: Deploy, values: Mapping[str, str]) -> tuple[DeployWarning, ...]:
    """Warn of edits by hand that are about to be replaced, by a file with `values` among others; they are kept."""
    found = edits.keep(_edits(deploy), values, deploy.prefix, deploy.unit)
    advice.show(found, deploy.console)
    return found


def _edits(deploy: Deploy) -> tuple[Edit, ...]:
    definition = edits.of_definition(deploy.prefix, activation.former(deploy) or deploy.manager, deploy.definition)
    return (*edits.of_environment(deploy.prefix), *definition)


def _runs_as_configured(deploy: Deploy) -> bool:
    """Whether the service runs the active release with the configured definition."""
    known, prefix, manager = installed.read(deploy.prefix), deploy.prefix, deploy.manager
    return (
        known.active == prefix.active()
        and manager.digest() == records.sha256_bytes(manager.render(deploy.definition)) == known.unit_sha256
        and prefix.shim.is_file()
        and prefix.shim.read_bytes() == shim.render(prefix, deploy.unit, manager)
        and _look(deploy).healthy
    )


def _nothing(prefix: Prefix) -> Deployment:
    return Deployment(
        prefix=prefix.folder,
        active="",
        parent="",
        version="",
        pid=0,
        healthy=False,
        releases=(),
        reason="nothing is installed",
    )


def _look(deploy: Deploy) -> Deployment:
    prefix = deploy.prefix
    known, active = installed.read(prefix), prefix.active()
    running = deploy.manager.inspect()
    version, reason = "", ""
    try:
        expected = deploy.unit.version(deploy.manifest(active)) if active else ""
        version = deploy.unit.ready(environment.read(prefix.release(active))) if active else ""
        if not active:
            reason = "no release is active"
        elif not running.running:
            reason = f"the service is not running{f'; it ended with: {running.last_end}' if running.last_end else ''}"
        elif version != expected:
            reason = f"expected version {expected!r}, but {version!r} answers" if version else "it does not answer"
            reason += "" if version else _awaited(deploy, active)
    except ToolchainError as error:
        reason = error.message
    return Deployment(
        prefix=prefix.folder,
        active=active,
        parent=known.parent() if known.active == active else "",
        version=version,
        pid=running.pid,
        healthy=not reason,
        releases=tuple(one.id for one in known.releases),
        verified=bool(active) and proof.is_proven(prefix.release(active)),
        reason=reason,
        edits=_edits(deploy),
    )


def _awaited(deploy: Deploy, active: str) -> str:
    """What must exist before the shim starts the program, and does not."""
    values = environment.read(deploy.prefix.release(active))
    missing = [path for name in deploy.unit.variables.paths if (path := values.get(name))]
    return "".join(f": it waits for {path}, which does not exist" for path in missing if not os.access(path, os.F_OK))
