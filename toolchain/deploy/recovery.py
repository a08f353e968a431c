"""Finishes or undoes a killed deploy, according to the intent journal.

Before the swap nothing running was changed, so the deploy is undone. From the swap on it is finished: the same steps
run again, with the health check, so that the new release or the previous one is healthy in the end. A journal that is
damaged, or that no deploy can have written, is set aside: what is on the disk and what runs decide.
"""

from __future__ import annotations

from ..core.errors import DiskFull, RecordError, ReleaseInvalid, Unhealthy
from . import activation, attempt, installed, restorepoint, store
from .context import Deploy
from .journal import AFTER_HEALTH, BEFORE_SWAP, RESTORE, JournalEntry, Operation


def recover(deploy: Deploy) -> None:
    """Handle a leftover journal, if there is one. Raises `RolledBack` or `Unhealthy` when the release failed."""
    try:
        entry = deploy.journal.read()
    except RecordError as damage:
        deploy.manager.inspect()  # fails if the manager is unavailable, before the journal is gone
        deploy.console.warn(f"{damage.message}; it is kept as {store.set_aside(deploy.prefix.journal).name}")
        decide(deploy)
        return
    if entry is None:
        if deploy.prefix.before.is_dir():
            deploy.console.warn("a deploy was interrupted, and its journal is gone")
            decide(deploy)
        return
    deploy.console.warn(f"a deploy was interrupted: {entry.operation} {entry.release} at step {entry.step!r}")
    if entry.operation == "uninstall":
        activation.remove_everything(deploy)
        return
    deploy.manager.inspect()  # fails if the manager is unavailable, before a try is used up
    if entry.step in BEFORE_SWAP:
        undo(deploy)
    elif not _can_go_on(deploy):
        deploy.journal.clear()
        decide(deploy)
    elif entry.step == RESTORE or entry.tries_left <= 0 or attempt.is_going_back(deploy):
        failure = Unhealthy("its deploy was interrupted too often, or during the rollback")
        attempt.restore(deploy, failure, str(deploy.log))
    elif entry.step in AFTER_HEALTH:
        attempt.finish(deploy)
    else:
        try:
            deploy.journal.note(tries_left=entry.tries_left - 1)
        except (DiskFull, OSError) as error:  # uncounted tries could go on for ever
            attempt.restore(deploy, error)
        attempt.activate(deploy)


def undo(deploy: Deploy) -> None:
    """Undo the steps before the swap: delete the new release, or restore the environment of an existing one."""
    entry = deploy.journal.entry
    activation.tidy(deploy)
    if deploy.prefix.before.is_dir():
        restorepoint.put_back(deploy.prefix, entry.release)
    elif entry.environment_before is not None and deploy.prefix.release(entry.release).is_dir():
        reader = deploy.manager.account
        store.write_environment(entry.release, entry.environment_before, deploy.prefix, reader)
    attempt.close(deploy)


def decide(deploy: Deploy) -> None:
    """Decide without a journal: the active release runs and was found healthy, or it is made to run, with the checks.

    A restore point tells what was active before. Raises as `recover` does.
    """
    prefix, console = deploy.prefix, deploy.console
    known, active, before = installed.read(prefix), prefix.active(), prefix.linked(prefix.before / "current")
    if not active:
        console.note("no release is active; nothing is to be finished")
        attempt.close(deploy)
        return
    others = [one.id for one in known.releases if one.id != active and prefix.has(one.id)]
    choices = (before, known.active, known.parent(), *reversed(others))
    previous = next((one for one in choices if one and one != active and prefix.has(one)), "")
    try:
        store.checked(active, prefix)
    except ReleaseInvalid as damage:
        console.warn(f"{damage.message}; {f'going back to {previous}' if previous else 'there is no other release'}")
        attempt.close(deploy)
        if not previous:
            return
        store.checked(previous, prefix)
        active = previous
    if known.active == active == prefix.active() and deploy.manager.inspect().running:
        console.note(f"release {active} is active and runs; nothing is to be finished")
        activation.tidy(deploy)
        attempt.close(deploy)
        return
    operation: Operation = "rollback" if known.find(active) else "install"
    entry = JournalEntry(operation=operation, step="swap", release=active, previous=previous or active)
    deploy.journal.begin(entry)
    if before != entry.previous:
        restorepoint.prepare(prefix, active, entry.previous)
    attempt.activate(deploy)


def _can_go_on(deploy: Deploy) -> bool:
    """Whether the releases of the journal, from the swap on, are there and whole; says why not."""
    entry, prefix = deploy.journal.entry, deploy.prefix
    known = installed.read(prefix)
    if entry.previous and not prefix.has(entry.previous):
        deploy.console.warn(f"the journal names a previous release that is not installed: {entry.previous}")
        return False
    if not entry.previous and any(prefix.has(one.id) for one in known.releases if one.id != entry.release):
        deploy.console.warn("the journal names no previous release although there is one")
        return False
    if entry.step in AFTER_HEALTH and prefix.active() != entry.release:
        deploy.console.warn(f"the journal says that {entry.release} is healthy, which is not active")
        return False
    if entry.step == RESTORE and entry.previous:
        return True  # what is to be restored was active before
    try:
        store.checked(entry.release, prefix)
    except ReleaseInvalid as damage:
        if entry.step == RESTORE:
            return True  # nothing was there before it
        deploy.console.warn(damage.message)
        return False
    return True
