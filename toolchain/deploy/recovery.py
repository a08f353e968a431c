"""Finishes or undoes a killed deploy, according to the intent journal.

Before the swap nothing running was changed, so the deploy is undone. From the swap on it is finished: the same steps
run again, with the health check, so that the new release or the previous one is healthy in the end.
"""

from __future__ import annotations

from ..core.errors import DiskFull, Unhealthy
from . import activation, attempt, restorepoint, store
from .activation import Deploy
from .journal import AFTER_HEALTH, BEFORE_SWAP, RESTORE


def recover(deploy: Deploy) -> None:
    """Handle a leftover journal, if there is one. Raises `RolledBack` or `Unhealthy` when the release failed."""
    entry = deploy.journal.read()
    if entry is None:
        return
    deploy.manager.inspect()  # fails if the manager is unavailable, before a try is used up
    deploy.console.warn(f"a deploy was interrupted: {entry.operation} {entry.release} at step {entry.step!r}")
    if entry.operation == "uninstall":
        activation.remove_everything(deploy)
    elif entry.step in BEFORE_SWAP:
        undo(deploy)
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
        store.write_environment(entry.release, entry.environment_before, deploy.prefix)
    attempt.close(deploy)
