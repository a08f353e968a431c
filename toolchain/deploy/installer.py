"""The operations on an installation: install, rollback, status, prune, uninstall.

Each takes the prefix's lock (status only to repair), and first finishes or undoes an interrupted deploy. The steps of
an install:

    copy -> environment -> shim -> swap -> unit -> restart -> health -> bless -> prune
                                   from here on a failure restores the previous release
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ..build import release as built
from ..core import locks, records
from ..core.config import Config
from ..core.console import Console
from ..core.errors import (
    ConfigError,
    LockHeld,
    NothingToRollBackTo,
    ReleaseInvalid,
    RolledBack,
    ToolchainError,
    Unhealthy,
)
from ..core.records import record
from ..service import account, address, managers, model_store, servicelog, units
from ..service.manager import ServiceState
from ..stages import Deployment, DeployWarning, Edit, Verification
from . import (
    activation,
    advice,
    attempt,
    crashloop,
    edits,
    environment,
    following,
    given,
    installed,
    ownership,
    port,
    presence,
    proof,
    recovery,
    repair,
    restorepoint,
    shim,
    store,
)
from .activation import Deploy
from .following import LogLine, Restarted
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
    if config.deploy.models:
        model_store.named(config.deploy)
    config = _settled(config)
    with console.step("check of the release"):
        release = replace(built.check(release_dir), verification="")
    proven = proof.require(release, verification, config.deploy, console)
    unit = units.choose(config.deploy)
    values = unit.environment(release, config.deploy)
    text = environment.render(values)
    warnings = advice.variables(unit, release_dir, config.deploy)
    host = config.deploy.host
    address.check_local(host)
    if not address.is_loopback(host):
        console.warn(f"deploy.host: {host} is reachable from other machines, and {unit.name} has no authentication")
    with _locked(config, console) as deploy:
        prefix = deploy.prefix
        _check_place(deploy)
        if config.deploy.user and deploy.manager.account and deploy.manager.account.uid == 0:
            console.warn(f"deploy.user: {unit.name} runs as root, with all rights on this machine")
        owner = deploy.manager.account or account.caller()
        model_store.prepare(config.deploy, owner)
        warnings += advice.models(release, config.deploy, owner)
        advice.show(warnings, console)
        previous, same = prefix.active() or installed.read(prefix).active, store.holds(release, prefix)
        before = store.environment_text(release.id, prefix)
        if same and proven and not proof.is_proven(prefix.release(release.id)):
            proof.write(prefix.release(release.id), release, proven)
        if same and before == text and previous == release.id and _runs_as_configured(deploy):
            console.note(f"release {release.id} is already installed and healthy")
            return replace(_look(deploy), warnings=warnings)
        _preflight(deploy)
        warnings += _kept_edits(deploy, values)
        try:
            deploy.journal.begin(
                JournalEntry(
                    operation="install",
                    step="copy",
                    release=release.id,
                    previous=previous,
                    environment_before=before,
                )
            )
            restorepoint.prepare(prefix, release.id, previous)
            if not same:
                with console.step(f"copy of {release.id}") as step, _readable(deploy):
                    store.copy_in(release_dir, release, proven, prefix, step)
            deploy.journal.begin_step("environment")
            store.write_environment(release.id, text, prefix)
            deploy.journal.begin_step("shim")
            records.write_bytes(prefix.shim, shim.render(prefix, unit, deploy.manager, config.deploy), mode=0o755)
        except BaseException as error:
            if os.path.lexists(prefix.journal):
                recovery.undo(deploy)
            if not isinstance(error, Exception):
                console.warn(f"interrupted: nothing was changed, release {previous or '(none)'} is active")
            raise
        attempt.activate(deploy)
        return replace(_look(deploy), warnings=warnings)


def preflight(config: Config, console: Console) -> None:
    """What `install` would find too late, after a build: another service on the port, a refusal of the manager.

    Raises `ServiceConflict`, `PortInUse`, `ConfigError`, `PreflightRefused`, `DomainUnavailable`.
    """
    prefix = Prefix.of(config)
    with ownership.rights(prefix):
        deploy = _deploy(config, console)
        with ownership.claim(prefix, deploy.manager), console.step("preflight of the service"):
            _check_place(deploy)
            _preflight(deploy)


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
        activation.require_rights(deploy)
        proof.require_still(deploy.prefix.release(target), store.checked(target, deploy.prefix), config.deploy, console)
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
    with ownership.rights(prefix):
        deploy = _deploy(config, console)
        if not prefix.journal.exists() and ownership.may_change(prefix):
            activation.rotate_log(deploy)
        return _look(deploy)


def unhealthy(state: Deployment) -> Unhealthy | None:
    """What monitoring is told of a service that is not healthy or not installed; None of a healthy one."""
    if state.healthy:
        return None
    what = f"the service of release {state.active}" if state.active else str(state.prefix)
    return Unhealthy(f"{what}: {state.reason}", hint="./inv deploy.logs" if state.active else "./inv deploy.install")


def recover(config: Config, console: Console) -> None:
    """Finish or undo an interrupted deploy, repair what is damaged, and record a fallback of the shim.

    Does nothing while the deploying process is alive. Who does not own the prefix is only told of it.
    """
    prefix = Prefix.of(config)
    with ownership.rights(prefix):
        prefix.check()
        if not repair.needed(prefix) and not crashloop.is_pending(prefix):
            return
    if not ownership.may_change(prefix):
        console.warn(f"a deploy was interrupted; it is finished or undone once {prefix.owner} runs ./inv deploy.status")
        return
    try:
        with _locked(config, console):
            pass
    except LockHeld as held:
        console.note(held.message)
    except ConfigError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        console.warn(f"a deploy was interrupted or its state is damaged; another user must repair it: {error.message}")


@record
class ServiceLog:
    """The end of the service's log."""

    log: tuple[str, ...]


def logs(config: Config, lines: int = 50) -> ServiceLog:
    """The last lines of the service's log, also of rotated files; none if it never ran."""
    recover(config, Console())
    prefix = Prefix.of(config)
    with ownership.rights(prefix):
        log = prefix.logs / units.choose(config.deploy).log
        ownership.check_logs(log, *servicelog.rotated(log))
        return ServiceLog(log=servicelog.tail(log, lines))


def follow(config: Config, console: Console, lines: int = 50) -> Iterator[LogLine | Restarted]:
    """The last lines of the service's log, then its further ones as they come, and restarts. Never ends."""
    recover(config, console)
    prefix = Prefix.of(config)
    with ownership.rights(prefix):
        deploy = _deploy(config, console)
        ownership.check_logs(deploy.log, *servicelog.rotated(deploy.log))
        yield from following.events(deploy.log, deploy.manager, lines)


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
        activation.require_rights(deploy)
        deploy.journal.begin(JournalEntry(operation="uninstall", step="unload", release="", previous=active))
        activation.remove_everything(deploy)
        return presence.nothing(deploy)


def _settled(config: Config) -> Config:
    """With ~ in deploy.models as the home of the service's user."""
    if not config.deploy.models:
        return config
    models = account.expand(config.deploy.models, config.deploy, managers.machine(config.deploy))
    return replace(config, deploy=replace(config.deploy, models=str(models)))


@contextmanager
def _readable(deploy: Deploy) -> Iterator[None]:
    """Root copies a release with the rights of the prefix's owner. Raises `ReleaseInvalid` when these do not do."""
    try:
        yield
    except PermissionError as error:
        raise ReleaseInvalid(
            f"{error.filename}: {deploy.manager.owner.name}, to whom the prefix belongs, has no access",
            hint="put the release into a folder that all can read, as /Users/Shared",
        ) from error


def _deploy(config: Config, console: Console) -> Deploy:
    prefix = Prefix.of(config)
    prefix.check()
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
        stack.enter_context(ownership.rights(prefix))
        stack.enter_context(ownership.claim(prefix, _deploy(config, console).manager))
        try:
            lock = locks.held(prefix.lock, busy, hint="wait until it ends", timeout_s=_LOCK_WAIT_S)
            stack.enter_context(lock)
        except OSError as error:
            raise ConfigError(
                f"deploy.prefix: {prefix.folder} cannot be used: {error.strerror}",
                hint="name a folder that you can write to",
            ) from error
        deploy = _deploy(config, console)
        repair.prepare(deploy)
        try:
            recovery.recover(deploy)
        except (RolledBack, Unhealthy) as outcome:
            console.warn(f"the interrupted deploy was undone: {outcome.message}")
        crashloop.settle(prefix, console)
        try:
            yield _deploy(config, console)
        except (KeyboardInterrupt, SystemExit):
            if prefix.journal.exists():
                console.warn("interrupted: the next deploy command, such as deploy.status, finishes or undoes it")
            raise


def _check_place(deploy: Deploy) -> None:
    """Check that the service may be where it is to be, and that nothing else is."""
    config = deploy.config.deploy
    deploy.manager.check()
    activation.require_rights(deploy)
    port.check(deploy.manager, activation.instances(deploy), deploy.unit.competitors, config, deploy.prefix)
    if deploy.manager.caution:
        deploy.console.warn(deploy.manager.caution)


def _preflight(deploy: Deploy) -> None:
    """Ask the manager, unless it has this very definition loaded."""
    if not activation.is_loaded_as_configured(deploy):
        deploy.manager.preflight()


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
    """Whether the service runs the active release with the configured definition, and nowhere else."""
    known, prefix, manager = installed.read(deploy.prefix), deploy.prefix, deploy.manager
    return (
        known.active == prefix.active()
        and activation.is_loaded_as_configured(deploy)
        and not activation.others(deploy)
        and not activation.definitions(deploy)
        and prefix.shim.is_file()
        and prefix.shim.read_bytes() == shim.render(prefix, deploy.unit, manager, deploy.config.deploy)
        and _look(deploy).healthy
    )


def _look(deploy: Deploy) -> Deployment:
    prefix = deploy.prefix
    known, active, places = installed.read(prefix), prefix.active(), activation.instances(deploy)
    if pending := crashloop.found(prefix, known):  # and not recorded, for want of space or rights
        active = pending.parent
    fallback = pending or known.fallback
    serving = presence.serving(places, prefix)
    state = serving.state if serving else ServiceState(loaded=False)
    if not active and not places and not known.releases:
        return presence.nothing(deploy)
    version, reason = "", ""
    try:
        expected = deploy.unit.version(deploy.manifest(active)) if active else ""
        version = deploy.unit.ready(environment.read(prefix.release(active))) if active else ""
        if not active:
            reason = f"no release is active{presence.loaded(places)}"
        elif not state.running:
            reason = presence.not_running(deploy, state, version if version == expected else "")
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
        pid=state.pid,
        healthy=not reason,
        releases=tuple(one.id for one in known.releases),
        verified=bool(active) and proof.is_proven(prefix.release(active)),
        service=serving.manager.target if serving else "",
        also=tuple(one.manager.target for one in places if one is not serving),
        reason=reason,
        fallback=crashloop.describe(fallback) if fallback and fallback.parent == active else "",
        edits=_edits(deploy),
    )


def _awaited(deploy: Deploy, active: str) -> str:
    """What must exist before the shim starts the program, and does not."""
    values = environment.read(deploy.prefix.release(active))
    missing = [path for name in deploy.unit.variables.paths if (path := values.get(name))]
    return "".join(f": it waits for {path}, which does not exist" for path in missing if not os.access(path, os.F_OK))
