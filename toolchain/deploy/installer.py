"""The operations on an installation: install, roll back, look, prune, uninstall.

Each takes the prefix's lock (looking does so only to repair), and first finishes or undoes a deploy that was
interrupted. The story of an install:

    copy -> environment -> shim -> swap -> plist -> restart -> health -> bless -> prune
                                   from here on a failure brings the release before back
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ..build import release as built
from ..core import locks, records
from ..core.config import Config
from ..core.console import Console
from ..core.errors import ConfigError, LockHeld, NothingToRollBackTo, RolledBack, ToolchainError, Unhealthy
from ..core.records import record
from ..stages import Deployment, Verification
from . import activation, conflicts, environment, health, proof, recovery, service, state, store, templates
from .activation import Deploy
from .journal import Entry, Journal
from .layout import Layout

_LOCK_WAIT_S = 2.0
"""a program that a killed deployer was just starting may hold its lock for a moment longer"""


def install(
    release_dir: Path, config: Config, console: Console, verification: Verification | None = None
) -> Deployment:
    """Install a release directory on its verification and make it the running service.

    Installing what already runs changes nothing, but a release that was there unproven gets its proof. Raises before
    anything is changed: `ReleaseInvalid`, `Unverified`, `ConfigError` (a cache type that the release lacks),
    `ServiceConflict`, `PortInUse`, `LockHeld`, `DiskFull`. Afterwards: `RolledBack` when the release is unhealthy and
    the one before it is back, `Unhealthy` when there is no healthy one, `LaunchdRefused`, `DomainUnavailable`.
    """
    with console.step("check of the release"):
        release = replace(built.check(release_dir), verification="")
    proven = proof.require(release, verification, config.deploy, console)
    text = environment.render(release, config.deploy)
    if not environment.is_loopback(config.deploy.host):
        console.warn(f"deploy.host: {config.deploy.host} lets other machines in, and Ollama asks nobody who they are")
    with _locked(config, console) as deploy:
        layout = deploy.layout
        deploy.service.check_folder()
        conflicts.check(deploy.service, activation.former(deploy), config.deploy)
        previous, same = layout.active() or state.read(layout).active, store.holds(release, layout)
        before = store.environment_text(release.id, layout)
        if same and proven and not proof.is_proven(layout.release(release.id)):
            proof.write(layout.release(release.id), release, proven)
        if same and before == text and previous == release.id and _runs_as_configured(deploy):
            console.note(f"release {release.id} is installed and healthy already")
            return _look(deploy)
        deploy.journal.begin(
            Entry(
                operation="install",
                step="copy",
                release=release.id,
                previous=previous,
                source="" if same else str(release_dir.absolute()),
                environment_before=before,
            )
        )
        try:
            if not same:
                with console.step(f"copy of {release.id}") as step:
                    store.copy_in(release_dir, release, proven, layout, step)
            deploy.journal.begin_step("environment")
            store.write_environment(release.id, text, layout)
            deploy.journal.begin_step("shim")
            records.write_bytes(layout.shim, templates.shim(layout), mode=0o755)
        except BaseException:
            recovery.undo(deploy)
            raise
        activation.activate(deploy)
        return _look(deploy)


def rollback(config: Config, console: Console, to: str = "") -> Deployment:
    """Make the active release's parent (or the installed release `to`) the running one, with its own environment.

    Raises `NothingToRollBackTo`, and what `install` raises after its swap.
    """
    with _locked(config, console) as deploy:
        known = state.read(deploy.layout)
        target = to or known.parent()
        if not known.find(target):
            installed = ", ".join(one.id for one in known.releases) or "none"
            raise NothingToRollBackTo(
                f"{to}: no such release in {deploy.layout.prefix}"
                if to
                else f"the active release {known.active or '(none)'} has no parent that is still installed",
                hint=f"installed: {installed}",
            )
        built.check(deploy.layout.release(target))
        deploy.journal.begin(Entry(operation="rollback", step="swap", release=target, previous=known.active))
        activation.activate(deploy)
        return _look(deploy)


def status(config: Config, console: Console | None = None) -> Deployment:
    """What is active and whether it is healthy. An interrupted deploy is finished or undone first.

    Raises `DomainUnavailable` when launchd cannot be asked: then nobody can tell whether the service runs.
    """
    console = console or Console()
    recover(config, console)
    layout = Layout.of(config)
    if not layout.state.exists() and not layout.journal.exists():
        return _nothing(layout)
    return _look(_deploy(config, console))


def recover(config: Config, console: Console) -> None:
    """Finish or undo a deploy that was interrupted. Nothing to do while the one who deploys is alive."""
    if not Layout.of(config).journal.exists():
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
    """The last lines of the service's log; none when it never ran."""
    recover(config, Console())
    path = Layout.of(config).log
    if not path.exists():
        return ServiceLog(log=())
    with path.open(encoding="utf-8", errors="replace") as file:
        return ServiceLog(log=tuple(line.rstrip("\n") for line in deque(file, maxlen=lines)))


def prune(config: Config, console: Console) -> Deployment:
    """Delete old releases: deploy.keep of them stay, the active one and its parent always."""
    with _locked(config, console) as deploy:
        for gone in activation.prune(deploy):
            console.note(f"deleted release {gone}")
        return _look(deploy)


def uninstall(config: Config, console: Console) -> Deployment:
    """Stop the service and delete it with its releases. The logs and the models stay."""
    with _locked(config, console) as deploy:
        active = deploy.layout.active()
        deploy.journal.begin(Entry(operation="uninstall", step="bootout", release="", previous=active))
        activation.remove_everything(deploy)
        return _nothing(deploy.layout)


def _deploy(config: Config, console: Console) -> Deploy:
    layout = Layout.of(config)
    return Deploy(
        config=config,
        layout=layout,
        service=service.of(config, layout, loaded_in=state.read(layout).domain),
        journal=Journal(layout.journal),
        console=console,
    )


@contextmanager
def _locked(config: Config, console: Console) -> Iterator[Deploy]:
    """Hold the prefix's lock, with an interrupted deploy already dealt with. Raises `LockHeld`."""
    layout = Layout.of(config)
    busy = f"{layout.prefix}: another deploy is under way"
    with ExitStack() as stack:
        try:
            lock = locks.held(layout.lock, busy, hint="wait until it has ended", timeout_s=_LOCK_WAIT_S)
            stack.enter_context(lock)
        except OSError as error:
            raise ConfigError(
                f"deploy.prefix: {layout.prefix} cannot be used: {error.strerror}",
                hint="name a folder that you may write",
            ) from error
        deploy = _deploy(config, console)
        try:
            recovery.recover(deploy)
        except (RolledBack, Unhealthy) as outcome:
            console.warn(f"the interrupted deploy was undone: {outcome.message}")
        yield _deploy(config, console)


def _runs_as_configured(deploy: Deploy) -> bool:
    """Whether the service runs the active release, from the plist that the configuration gives."""
    known = state.read(deploy.layout)
    plist = deploy.service.plist
    return (
        known.active == deploy.layout.active()
        and plist.is_file()
        and plist.read_bytes() == service.render_plist(deploy.service, deploy.layout)
        and records.sha256_file(plist) == known.plist_sha256
        and deploy.layout.shim.is_file()
        and deploy.layout.shim.read_bytes() == templates.shim(deploy.layout)
        and _look(deploy).healthy
    )


def _nothing(layout: Layout) -> Deployment:
    return Deployment(
        prefix=layout.prefix,
        active="",
        parent="",
        version="",
        pid=0,
        healthy=False,
        releases=(),
        reason="nothing is installed",
    )


def _look(deploy: Deploy) -> Deployment:
    layout = deploy.layout
    known, active = state.read(layout), layout.active()
    running = deploy.service.inspect()
    version, reason = "", ""
    try:
        expected = deploy.manifest(active).version if active else ""
        version = health.answer(environment.base_url(layout.release(active))) if active else ""
        if not active:
            reason = "no release is active"
        elif not running.running:
            reason = f"the service is not running{f', it ended with: {running.last_end}' if running.last_end else ''}"
        elif version != expected:
            reason = f"version {expected!r} should answer, but {version!r} does" if version else "it does not answer"
    except ToolchainError as error:
        reason = error.message
    return Deployment(
        prefix=layout.prefix,
        active=active,
        parent=known.parent() if known.active == active else "",
        version=version,
        pid=running.pid,
        healthy=not reason,
        releases=tuple(one.id for one in known.releases),
        verified=bool(active) and proof.is_proven(layout.release(active)),
        reason=reason,
    )
