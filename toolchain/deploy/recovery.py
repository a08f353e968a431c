"""After a deploy that was killed: finish it or undo it, as the intent journal says.

Before the swap nothing that runs has changed, so the deploy is undone. From the swap on it is finished: the same
steps run again, health check included, which ends with a healthy release, the new one or the one before.
"""

from __future__ import annotations

from ..core.errors import Unhealthy
from . import activation, store
from .activation import Deploy
from .journal import AFTER_HEALTH, BEFORE_SWAP, RESTORE


def recover(deploy: Deploy) -> None:
    """Deal with a left-over journal, if there is one. Raises `RolledBack` or `Unhealthy` when the release failed."""
    entry = deploy.journal.read()
    if entry is None:
        return
    deploy.manager.inspect()  # while the manager cannot be asked, nothing is tried and no try is used up
    deploy.console.warn(f"a deploy was interrupted: {entry.operation} {entry.release} at step {entry.step!r}")
    if entry.operation == "uninstall":
        activation.remove_everything(deploy)
    elif entry.step in BEFORE_SWAP:
        undo(deploy)
    elif entry.step in AFTER_HEALTH:
        activation.finish(deploy)
    elif entry.step == RESTORE or entry.tries_left <= 0:
        failure = Unhealthy("its deploy was interrupted while it was being undone, or too often")
        activation.restore(deploy, failure, deploy.log)
    else:
        deploy.journal.note(tries_left=entry.tries_left - 1)
        activation.activate(deploy)


def undo(deploy: Deploy) -> None:
    """Undo the steps before the swap: the new release goes, the environment of one that was there comes back."""
    entry = deploy.journal.entry
    activation.tidy(deploy)
    if entry.environment_before is not None and deploy.prefix.release(entry.release).is_dir():
        store.write_environment(entry.release, entry.environment_before, deploy.prefix)
    deploy.journal.clear()
