"""Access to an installation: its parts, and its lock, under which what a killed deploy left is put right first."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from ..core import locks
from ..core.config import Config
from ..core.console import Console
from ..core.errors import ConfigError, LockHeld, RolledBack, Unhealthy
from ..service import managers
from . import crashloop, installed, ownership, recovery, repair
from .context import Deploy
from .journal import Journal
from .prefix import Prefix

_LOCK_WAIT_S = 2.0
"""a program that a killed deployer was starting may briefly hold its lock"""


def opened(config: Config, console: Console) -> Deploy:
    """The configured installation with its manager and its unit. Raises `PrefixInvalid` and `ConfigError`."""
    prefix = Prefix.of(config)
    prefix.check()
    loaded_in = installed.read(prefix).domain
    manager = managers.choose(config.deploy, prefix.folder, loaded_in=loaded_in)
    if manager.account is None and (user := ownership.user_of_logs(prefix)):  # its definition is gone
        config = replace(config, deploy=replace(config.deploy, user=user))
        manager = managers.choose(config.deploy, prefix.folder, loaded_in=loaded_in)
    return Deploy(
        config=config,
        prefix=prefix,
        manager=manager,
        journal=Journal(prefix.journal),
        console=console,
    )


@contextmanager
def locked(config: Config, console: Console) -> Iterator[Deploy]:
    """Hold the prefix's lock, after an interrupted deploy was finished or undone. Raises `LockHeld`."""
    prefix = Prefix.of(config)
    busy = f"{prefix.folder}: another deploy is in progress"
    with ExitStack() as stack:
        stack.enter_context(ownership.rights(prefix))
        stack.enter_context(ownership.claim(prefix, opened(config, console).manager))
        try:
            lock = locks.held(prefix.lock, busy, hint="wait until it ends", timeout_s=_LOCK_WAIT_S)
            stack.enter_context(lock)
        except OSError as error:
            raise ConfigError(
                f"deploy.prefix: {prefix.folder} cannot be used: {error.strerror}",
                hint="name a folder that you can write to",
            ) from error
        deploy = opened(config, console)
        repair.prepare(deploy)
        try:
            recovery.recover(deploy)
        except (RolledBack, Unhealthy) as outcome:
            console.warn(f"the interrupted deploy was undone: {outcome.message}")
        crashloop.settle(prefix, console)
        try:
            yield opened(config, console)
        except (KeyboardInterrupt, SystemExit):
            if prefix.journal.exists():
                console.warn("interrupted: the next deploy command, such as deploy.status, finishes or undoes it")
            raise


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
        with locked(config, console):
            pass
    except LockHeld as held:
        console.note(held.message)
    except ConfigError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        what = "a deploy was interrupted or its state is damaged, to be repaired once the prefix can be written"
        console.warn(f"{what}: {error.message}")
