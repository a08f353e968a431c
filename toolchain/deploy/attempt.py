"""An attempt to activate a release: it ends with that release, or with the previous one, healthy.

install, rollback and their recovery run the same steps, so that a killed deploy continues as it would have. Whatever
goes wrong between the swap and the blessing is caught in one place, and brings the previous release back.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from ..core import records
from ..core.errors import ManagerUnavailable, RolledBack, ToolchainError, Unhealthy
from ..core.printable import printable
from ..service import account, units
from . import activation, environment, failure, installed, ownership, places, reminder, restorepoint, store
from .context import Deploy
from .installed import InstallState
from .journal import FROM_SWAP, RESTORE

_TAIL_LINES = 15
_PROOF_BYTES = 1 << 20
"""free space that a proof takes: the probe model and lines of the log"""
_POLL_S = 0.1


def activate(deploy: Deploy) -> None:
    """Swap, restart, check, bless, prune: make the journal's release the active one.

    Whatever goes wrong until it is blessed, a bug of ours or an interrupt included, restores the previous release:
    raises `RolledBack`, `Unhealthy` if there is none or if that one is unhealthy, too, or the interrupt.
    """
    _until_blessed(deploy, lambda: activation.start(deploy, deploy.journal.entry.release))


def finish(deploy: Deploy) -> None:
    """The remaining steps for a healthy release. Raises what `activate` raises."""
    _until_blessed(deploy, lambda: None)


def _until_blessed(deploy: Deploy, start: Callable[[], None]) -> None:
    """The one place that catches everything between the swap and the blessing: `start` is what leads to the latter."""
    with restorepoint.spare_descriptors() as spare:
        try:
            start()
            deploy.journal.begin_step("bless")
            activation.bless(deploy)
        except ManagerUnavailable:
            raise  # health unknown: the journal stays, so that a later command decides
        except BaseException as error:
            spare.close()
            restore(deploy, error)
    try:
        deploy.journal.begin_step("prune")
        activation.prune(deploy)
    except Exception as error:  # the release is healthy and blessed: old ones may stay until the next deploy
        deploy.console.warn(f"old releases were not deleted: {failure.describe(error, deploy.prefix.logs)}")
    close(deploy)


def close(deploy: Deploy) -> None:
    """End an operation: nothing remains to be done or undone."""
    restorepoint.clear(deploy.prefix)
    deploy.journal.clear()


def restore(deploy: Deploy, cause: BaseException, log: str = "") -> NoReturn:
    """Restore the previous release after `cause`; `log` is where the log of the failed one is, empty: save it.

    Always raises: `RolledBack`; `Unhealthy` if no healthy release is left; `ManagerUnavailable`; or `cause`, where that
    is an interrupt. A first interrupt during the restore does not stop it. A second one does: the journal stays.
    """
    try:
        outcome = _restored(deploy, cause, log)
    except ManagerUnavailable:
        raise
    except Exception as error:
        entry, logs = deploy.journal.entry, deploy.prefix.logs
        raise Unhealthy(
            f"release {entry.release}: {failure.describe(cause, logs)}\n"
            f"  and going back to {entry.previous or 'nothing'} failed: {failure.describe(error, logs)}",
            hint="./inv deploy.status tries again",
        ) from cause
    except BaseException as stop:
        if isinstance(cause, Exception):
            deploy.console.warn("interrupted; going back all the same")
            restore(deploy, stop, log)
        raise
    if outcome is cause:
        raise cause
    raise outcome from cause


def is_going_back(deploy: Deploy) -> bool:
    """Whether an interrupted deploy was restoring the previous release, though a full disk kept that from its journal.

    From the step after the swap on, `current` points to the new release.
    """
    entry = deploy.journal.entry
    return entry.step in FROM_SWAP[1:] and deploy.prefix.active() == entry.previous != entry.release


def _restored(deploy: Deploy, cause: BaseException, log: str) -> BaseException:
    """Restore, and return what is to be raised. Nothing but the manager and the previous release can make it fail."""
    entry, prefix, console = deploy.journal.entry, deploy.prefix, deploy.console
    with contextlib.suppress(OSError, ToolchainError):  # restoring has priority over journalling
        deploy.journal.begin_step(RESTORE)
    reason = failure.describe(cause, prefix.logs)
    if not log:
        target = prefix.logs / f"failed-{entry.release}-{store.stamp()}.log"
        log, lines = failure.capture(deploy.log, entry.log_offset, target)
        for line in lines[-_TAIL_LINES:]:
            console.note(f"    {printable(line)}")
    found = f"release {entry.release}: {reason}\n  its log: {log}"
    if not entry.previous:
        activation.dismantle(deploy)
        close(deploy)
        ending = "there is no previous release; the service is stopped and unloaded"
        if not isinstance(cause, Exception):
            console.warn(f"interrupted: {ending}")
            return cause
        return Unhealthy(f"{found}\n  {ending}", hint=f"read {log}")
    console.warn(f"{reason}; going back to {entry.previous}")
    known = _state_before(deploy)
    problems = _put_back(deploy)
    try:
        doubt = _restart_previous(deploy, known)
    except ManagerUnavailable as unknown:
        return unknown  # the journal stays at this step
    except Exception as second:
        # It was healthy once and the manager keeps restarting it. Stopping it would only make things worse.
        _tidy_quietly(deploy)
        close(deploy)
        return Unhealthy(
            f"{found}\n  release {entry.previous}, which is active again, is unhealthy, too: "
            f"{failure.describe(second, prefix.logs)}",
            hint="./inv deploy.logs shows why; ./inv deploy.rollback --to names an older release",
        )
    _tidy_quietly(deploy)
    if problems:
        console.warn(f"not put back: {'; '.join(problems)}; the next deploy command tries again")
    else:
        close(deploy)
    ending = f"release {entry.previous} is active and healthy{doubt}"
    if not isinstance(cause, Exception):
        console.warn(f"interrupted: rolled back: {ending}")
        return cause
    return RolledBack(f"{found}\n  rolled back: {ending}", hint=f"read {log}")


def _put_back(deploy: Deploy) -> tuple[str, ...]:
    """Put the files of the previous release back, and return what could not be."""
    entry, prefix = deploy.journal.entry, deploy.prefix
    problems = list(restorepoint.put_back(prefix, entry.release))
    try:
        if not prefix.before.is_dir() and entry.environment_before is not None:  # begun by an earlier version
            reader = deploy.manager.account
            store.write_environment(entry.release, entry.environment_before, prefix, reader)
        if prefix.active() != entry.previous:
            store.swap(entry.previous, prefix)
        if (known := installed.read(prefix)).active != entry.previous:
            installed.write(prefix, known.activated(entry.previous))
    except (OSError, ToolchainError) as error:
        problems.append(str(error))
    return tuple(problems)


def _state_before(deploy: Deploy) -> InstallState:
    """The state before the deploy; without a readable one, that of a service where the configuration puts it."""
    try:
        return restorepoint.state(deploy.prefix)
    except (OSError, ToolchainError):
        return InstallState().registered(deploy.manager.registration, deploy.manager.digest())


def _restart_previous(deploy: Deploy, known: InstallState) -> str:
    """Restart the service where it was registered, and check it. Returns what remains in doubt.

    Raises what `_check_health` and the manager raise.
    """
    manager = deploy.manager
    before = places.former(deploy, known) or manager
    with contextlib.suppress(OSError):
        failure.log_folder(deploy.prefix)
        failure.log_file(deploy.log)
    before.inspect()  # fails if its domain is unavailable, before another copy that serves is stopped
    places.look(replace(deploy, manager=before)).check_label()
    with contextlib.suppress(ToolchainError, OSError):
        places.look(deploy).leave_only(before)  # the end of its process alone would not keep another copy from serving
    with contextlib.suppress(OSError, ToolchainError):  # it may have had another user
        name = before.describe(Path(before.registration.file).read_bytes()).get("UserName", "")
        ownership.prepare_logs(deploy.prefix, deploy.log, account.named(name) if name else None)
    activation.end_strays(deploy, before)  # one that holds the port must not be in the way
    activation.rotate_log(deploy)
    offset = activation.log_size(deploy)
    if manager.registration.file != before.registration.file:
        with contextlib.suppress(ToolchainError, OSError):
            places.delete_configured(deploy)
    same = before.digest() == known.unit_sha256 == records.sha256_bytes(before.render(deploy.definition))
    try:
        with reminder.second_signal(before):
            before.restart() if same else before.reload()
    except ManagerUnavailable:
        raise
    except ToolchainError:
        before.reload()
    activation.end_strays(deploy, before)
    return _check_previous(replace(deploy, manager=before), offset)


def _check_previous(deploy: Deploy, log_offset: int) -> str:
    """Check the restored release, and return what remains in doubt because the check itself is broken."""
    try:
        activation.check_health(deploy, deploy.journal.entry.previous, log_offset, stop=False)
    except ManagerUnavailable:
        raise
    except Exception as error:
        if isinstance(error, ToolchainError) and not _is_full(deploy):
            raise
        _await_answer(deploy)
        return f"; it answers, but what it does could not be checked: {failure.describe(error, deploy.prefix.logs)}"
    return ""


def _is_full(deploy: Deploy) -> bool:
    """Whether the disk of the service's log, or that of temporary files, is too full for any proof."""
    try:
        free = [shutil.disk_usage(path).free for path in (deploy.prefix.folder, tempfile.gettempdir())]
    except OSError:
        return True
    return min(free) < _PROOF_BYTES


def _await_answer(deploy: Deploy) -> None:
    """Wait until the restored release answers with its version. Raises `Unhealthy`."""
    identifier = deploy.journal.entry.previous
    given = environment.read(deploy.prefix.release(identifier))
    unit = units.choose(given)
    wanted = unit.version(deploy.manifest(identifier))
    deadline = time.monotonic() + deploy.config.deploy.health_timeout_s
    while not (deploy.manager.inspect().running and unit.ready(given) == wanted):
        if time.monotonic() > deadline:
            raise Unhealthy(f"release {identifier} does not answer")
        time.sleep(_POLL_S)


def _tidy_quietly(deploy: Deploy) -> None:
    with contextlib.suppress(OSError, ToolchainError):  # the next deploy tidies up, too
        activation.tidy(deploy)
