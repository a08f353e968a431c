"""The operations on an installation: install, rollback, status, prune, uninstall.

Each takes the prefix's lock (status only to repair), and first finishes or undoes an interrupted deploy. The steps of
an install:

    copy -> environment -> shim -> swap -> unit -> restart -> health -> bless -> prune
                                   from here on a failure restores the previous release
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ..build import release as built
from ..core import records
from ..core.config import Config
from ..core.console import Console
from ..core.errors import NothingToRollBackTo, ReleaseInvalid
from ..core.records import record
from ..proofs import Verification
from ..service import account, address, managers, model_store, servicelog, units
from ..stages import Deployment, DeployWarning
from . import (
    access,
    activation,
    advice,
    attempt,
    beside,
    calibrations,
    edits,
    environment,
    following,
    given,
    installed,
    overview,
    ownership,
    places,
    port,
    presence,
    proof,
    recovery,
    restorepoint,
    served,
    several,
    shim,
    store,
)
from .context import Deploy
from .following import LogLine, Restarted
from .journal import JournalEntry
from .places import Places
from .prefix import Prefix


def install(
    release_dir: Path, config: Config, console: Console, verification: Verification | None = None
) -> Deployment:
    """Install a release directory with its verification and make it the running service.

    Installing the running release changes nothing, except that an unproven one gets its proof. Raises before
    anything is changed: `ReleaseInvalid`, `Unverified`, `ConfigError` (a cache type that the release lacks),
    `ServiceConflict`, `PortInUse`, `LockHeld`, `DiskFull`. Afterwards: `RolledBack` when the release is unhealthy and
    the previous one is restored, `Unhealthy` when there is no healthy one, `ManagerRefused`, `ManagerUnavailable`.
    """
    if config.deploy.models:
        model_store.named(config.deploy)
    config = _settled(config)
    with console.step("check of the release"):
        release = replace(built.check(release_dir), verification="")
    proven = proof.require(release, verification, config.deploy, console)
    unit = units.configured(config.deploy)
    models = several.completed(served.look(config.deploy), release, config)
    several.require_able(models, release_dir, release)
    calibrated = calibrations.files(config.deploy, Prefix.of(config))
    files = {path: text.encode() for path, text in unit.files(models).items()} | dict(calibrated)
    values = unit.environment(release, config.deploy, models) | calibrations.variables(calibrated)
    text = environment.render(values)
    warnings = advice.variables(unit, release_dir, config.deploy)
    host = config.deploy.host
    address.check_local(host)
    if config.deploy.serve == "ollama":
        if config.deploy.api_key_file:
            console.warn(f"deploy.api_key_file: {unit.name} asks nobody for a key")
        if not address.is_loopback(host):
            console.warn(f"deploy.host: {host} is reachable from other machines, and {unit.name} has no authentication")
    elif not address.is_loopback(host):
        console.warn(f"deploy.host: {host} is reachable from other machines, and {unit.name} encrypts nothing")
    with access.locked(config, console) as deploy:
        prefix = deploy.prefix
        found = _check_place(deploy)
        if config.deploy.user and deploy.manager.account and deploy.manager.account.uid == 0:
            console.warn(f"deploy.user: {unit.name} runs as root, with all rights on this machine")
        owner = deploy.manager.account or account.caller()
        if config.deploy.serve == "ollama":
            model_store.prepare(config.deploy, owner)
            warnings += advice.models(release, config.deploy, owner)
        warnings += served.advice(models, release, config.deploy, owner) + several.advice(models, values)
        previous, same = prefix.active() or installed.read(prefix).active, store.holds(release, prefix)
        warnings += advice.dropped(_environment_of(previous, prefix), values, unit.variables, config.origins)
        advice.show(warnings, console)
        before = store.environment_text(release.id, prefix)
        if same and proven and not proof.is_proven(prefix.release(release.id)):
            proof.write(prefix.release(release.id), release, proven)
        unchanged = same and before == text and previous == release.id and beside.are_there(files)
        if unchanged and (state := overview.if_as_configured(found)):
            console.note(f"release {release.id} is already installed and healthy")
            return replace(state, warnings=warnings)
        _preflight(deploy, found)
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
            beside.write(files)
            store.write_environment(release.id, text, prefix, deploy.manager.account)
            deploy.journal.begin_step("shim")
            records.write_bytes(prefix.shim, shim.render(prefix, deploy.manager, config.deploy), mode=0o755)
        except BaseException as error:
            if os.path.lexists(prefix.journal):
                recovery.undo(deploy)
            if not isinstance(error, Exception):
                console.warn(f"interrupted: nothing was changed, release {previous or '(none)'} is active")
            raise
        attempt.activate(deploy)
        return replace(overview.look(deploy), warnings=warnings)


def preflight(config: Config, console: Console) -> None:
    """What `install` would find too late, after a build: another service on the port, a refusal of the manager.

    Raises `ServiceConflict`, `PortInUse`, `ConfigError`, `PreflightRefused`, `ManagerUnavailable`.
    """
    units.configured(config.deploy).files(served.look(config.deploy))
    prefix = Prefix.of(config)
    with ownership.rights(prefix):
        deploy = access.opened(config, console)
        with ownership.claim(prefix, deploy.manager), console.step("preflight of the service"):
            _preflight(deploy, _check_place(deploy))


def rollback(config: Config, console: Console, to: str = "") -> Deployment:
    """Make the active release's parent (or the installed release `to`) the running one, with its own environment.

    Raises `NothingToRollBackTo`, and what `install` raises after its swap.
    """
    with access.locked(config, console) as deploy:
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
        found = places.look(deploy)
        found.require_rights()
        found.check_label()
        proof.require_still(deploy.prefix.release(target), store.checked(target, deploy.prefix), config.deploy, console)
        values = environment.read(deploy.prefix.release(target))
        for name in units.choose(values).variables.paths:
            model_store.require(name, values.get(name, ""))
        warnings = _kept_edits(deploy, values)
        deploy.journal.begin(JournalEntry(operation="rollback", step="swap", release=target, previous=known.active))
        try:
            restorepoint.prepare(deploy.prefix, target, known.active)
        except BaseException:
            attempt.close(deploy)
            raise
        attempt.activate(deploy)
        return replace(overview.look(deploy), warnings=warnings)


def status(config: Config, console: Console | None = None) -> Deployment:
    """What is active and whether it is healthy. Finishes or undoes an interrupted deploy first.

    Raises `ManagerUnavailable` when the manager is unavailable, so that the state of the service is unknown.
    """
    console = console or Console()
    access.recover(config, console)
    prefix = Prefix.of(config)
    with ownership.rights(prefix):
        deploy = access.opened(config, console)
        if not prefix.journal.exists() and ownership.may_change(prefix):
            activation.rotate_log(deploy)
        return overview.look(deploy)


@record
class ServiceLog:
    """The end of the service's log."""

    log: tuple[str, ...]


def logs(config: Config, lines: int = 50) -> ServiceLog:
    """The last lines of the service's log, also of rotated files; none if it never ran. Raises `PrefixUnsafe`."""
    access.recover(config, Console())
    prefix = Prefix.of(config)
    with ownership.rights(prefix):
        return ServiceLog(log=servicelog.tail(prefix.log, lines, opened=ownership.open_log))


def follow(config: Config, console: Console, lines: int = 50) -> Iterator[LogLine | Restarted]:
    """The last lines of the service's log, then its further ones as they come, and restarts. Never ends."""
    access.recover(config, console)
    prefix = Prefix.of(config)
    with ownership.rights(prefix):
        deploy = access.opened(config, console)
        yield from following.events(deploy.log, deploy.manager, lines)


def prune(config: Config, console: Console) -> Deployment:
    """Delete old releases: keeps deploy.keep of them, and always the active one and its parent."""
    with access.locked(config, console) as deploy:
        for gone in activation.prune(deploy):
            console.note(f"deleted release {gone}")
        return overview.look(deploy)


def uninstall(config: Config, console: Console) -> Deployment:
    """Stop the service and delete it with its releases. The logs and the models stay."""
    with access.locked(config, console) as deploy:
        active = deploy.prefix.active()
        places.look(deploy).require_rights()
        deploy.journal.begin(JournalEntry(operation="uninstall", step="unload", release="", previous=active))
        activation.remove_everything(deploy)
        return presence.nothing(deploy, places.look(deploy))


def _environment_of(release: str, prefix: Prefix) -> Mapping[str, str]:
    """The variables of an installed release; none if there is no such release, or its file is damaged."""
    with suppress(ReleaseInvalid):
        return environment.read(prefix.release(release)) if release else {}
    return {}


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


def _check_place(deploy: Deploy) -> Places:
    """Check that the service may be where it is to be, and that nothing else is. Returns where it is."""
    config = deploy.config.deploy
    deploy.manager.check()
    found = places.look(deploy)
    found.require_rights()
    found.check_label()
    port.check(deploy.manager, found.instances, deploy.unit.competitors, config, deploy.prefix)
    if deploy.manager.caution:
        deploy.console.warn(deploy.manager.caution)
    return found


def _preflight(deploy: Deploy, found: Places) -> None:
    """Ask the manager, unless it has this very definition loaded."""
    if not found.are_as_configured():
        deploy.manager.preflight()


def given_environment(config: Config, console: Console) -> given.GivenEnvironment:
    """What the service is given. Raises as `status` does, and `ReleaseInvalid` for a file that cannot be read."""
    found = status(config, console)
    return given.look(config, Prefix.of(config), found.pid, found.edits)


def _kept_edits(deploy: Deploy, values: Mapping[str, str]) -> tuple[DeployWarning, ...]:
    """Warn of edits by hand that are about to be replaced, by a file with `values` among others; they are kept."""
    found = edits.keep(overview.edits_of(deploy), values, deploy.prefix, deploy.unit)
    advice.show(found, deploy.console)
    return found
