"""Making a release the active one, and going back when it is not healthy: the steps from the swap on.

install, rollback and the recovery of either run the same steps, so that a deploy that was killed goes on exactly
as it would have.
"""

from __future__ import annotations

import datetime
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from ..build import release as built
from ..core import records
from ..core.config import Config
from ..core.console import Console
from ..core.errors import DomainUnavailable, RolledBack, ToolchainError, Unhealthy
from ..stages import Release
from . import health, state, store
from .journal import RESTORE, Journal
from .layout import Layout
from .service import Service, account, render_plist

_CAPTURE_BYTES = 1 << 20
_TAIL_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """What every step needs."""

    config: Config
    layout: Layout
    service: Service
    journal: Journal
    console: Console

    def manifest(self, identifier: str) -> Release:
        """The manifest of an installed release."""
        return records.read(self.layout.release(identifier) / built.MANIFEST, Release)


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
    except ToolchainError as failure:  # launchd's refusals too: whatever happened, the old service must come back
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
    journal, entry, layout = deploy.journal, deploy.journal.entry, deploy.layout
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
        store.write_environment(entry.release, entry.environment_before, layout)
    store.swap(entry.previous, layout)
    try:
        _load_and_restart(deploy)
        health.check(
            deploy.manifest(entry.previous),
            layout.release(entry.previous),
            layout.log,
            deploy.service,
            deploy.config.deploy,
            deploy.console,
        )
    except ToolchainError as second:
        # It was healthy once and its plist keeps it alive; taking it down as well would only make things worse.
        tidy(deploy)
        journal.clear()
        raise Unhealthy(
            f"{found}\n  release {entry.previous}, which is active again, is not healthy either: {second.message}",
            hint="./inv deploy.logs shows why; ./inv deploy.rollback --to names an older release",
        ) from failure
    current = state.read(layout)
    if current.active != entry.previous:
        state.write(layout, current.activated(entry.previous))
    tidy(deploy)
    journal.clear()
    raise RolledBack(
        f"{found}\n  rolled back: release {entry.previous} is active and healthy", hint=f"read {log}"
    ) from failure


def prune(deploy: Deploy) -> tuple[str, ...]:
    """Delete the oldest releases above deploy.keep, never the active one or its parent. Returns their ids."""
    known = state.read(deploy.layout)
    protected = {known.active, known.parent()}
    spare = [one.id for one in known.releases if one.id not in protected]
    surplus = max(0, len(known.releases) - deploy.config.deploy.keep)
    doomed = tuple(spare[:surplus])
    if doomed:
        state.write(deploy.layout, known.without(set(doomed)))
    tidy(deploy)
    return doomed


def tidy(deploy: Deploy) -> None:
    """Delete from releases/ whatever is neither active nor known to the state."""
    known = {one.id for one in state.read(deploy.layout).releases}
    store.sweep(known | {deploy.layout.active()}, deploy.layout)


def former(deploy: Deploy) -> Service | None:
    """The service as it was loaded, when the configuration now gives it another label, domain or plist."""
    known, service = state.read(deploy.layout), deploy.service
    old = replace(service, label=known.label, domain=known.domain, plist=Path(known.plist))
    return old if known.label and old != service else None


def _start(deploy: Deploy, identifier: str) -> None:
    journal, layout = deploy.journal, deploy.layout
    journal.begin_step("swap")
    store.swap(identifier, layout)
    journal.begin_step("plist")
    deploy.service.write_plist(render_plist(deploy.service, layout))
    journal.begin_step("restart")
    journal.note(log_offset=_log_size(layout))
    _load_and_restart(deploy)
    journal.begin_step("health")
    release = deploy.manifest(identifier)
    health.check(release, layout.release(identifier), layout.log, deploy.service, deploy.config.deploy, deploy.console)


def _load_and_restart(deploy: Deploy) -> None:
    """A restart, or the whole bootout cycle when launchd's copy of the plist is another one."""
    service, layout = deploy.service, deploy.layout
    layout.logs.mkdir(parents=True, exist_ok=True)
    user, _ = account(service)
    if user and os.geteuid() == 0:
        shutil.chown(layout.logs, user)
    known, old = state.read(layout), former(deploy)
    digest = records.sha256_file(service.plist)
    if old:
        deploy.console.note(f"{old.target} is replaced by {service.target}")
        _remove(old, keep=service.plist)
    elif known.plist_sha256 == digest:
        service.restart()
        return
    service.reload()
    state.write(
        layout,
        replace(known, label=service.label, domain=service.domain, plist=str(service.plist), plist_sha256=digest),
    )


def _remove(service: Service, *, keep: Path | None = None) -> None:
    service.unload()
    if service.plist != keep:
        service.plist.unlink(missing_ok=True)


def _bless(deploy: Deploy) -> None:
    entry, layout = deploy.journal.entry, deploy.layout
    known = state.read(layout)
    before = known.find(entry.release)
    if entry.operation == "rollback" and before:
        state.write(layout, known.activated(entry.release))
        return
    parent = entry.previous if entry.previous != entry.release else (before.parent if before else "")
    blessed = state.Installed(
        id=entry.release,
        parent=parent,
        version=deploy.manifest(entry.release).version,
        installed=_now().isoformat(timespec="seconds"),
    )
    state.write(layout, known.blessed(blessed))


def _dismantle(deploy: Deploy) -> None:
    """After a failed first install: no service that crashes in a loop, no link to a release that does not work."""
    _remove(deploy.service)
    deploy.layout.current.unlink(missing_ok=True)
    deploy.layout.state.unlink(missing_ok=True)
    tidy(deploy)


def _capture_log(deploy: Deploy) -> Path:
    """Save what the service logged since the release was started, before a rollback writes over the trail."""
    entry, layout = deploy.journal.entry, deploy.layout
    target = layout.logs / f"failed-{entry.release}-{_now():%Y%m%dT%H%M%SZ}.log"
    data = b""
    if layout.log.exists():
        with layout.log.open("rb") as file:
            file.seek(max(entry.log_offset, layout.log.stat().st_size - _CAPTURE_BYTES))
            data = file.read()
    records.write_bytes(target, data)
    for line in data.decode(errors="replace").splitlines()[-_TAIL_LINES:]:
        deploy.console.note(f"    {line}")
    return target


def _log_size(layout: Layout) -> int:
    return layout.log.stat().st_size if layout.log.exists() else 0


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def remove_everything(deploy: Deploy) -> None:
    """Uninstall: unload the service, then delete the plist and the prefix but for its logs."""
    layout, journal = deploy.layout, deploy.journal
    journal.begin_step("bootout")
    for service in (former(deploy), deploy.service):
        if service:
            _remove(service)
    journal.begin_step("remove")
    layout.current.unlink(missing_ok=True)
    store.sweep(set(), layout)
    for folder in (layout.releases, layout.shim.parent):
        shutil.rmtree(folder, ignore_errors=True)
    layout.state.unlink(missing_ok=True)
    journal.clear()
