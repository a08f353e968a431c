"""What a locked operation does first: it sweeps leftovers, and repairs what others or a crash left of the prefix.

The order matters: the state, then `current`, which it names. An interrupted deploy is handled afterwards (recovery.py).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from ..build import release as built
from ..core import records, temporary
from ..core.errors import ConfigError, RecordError, ToolchainError
from ..service import managers
from . import environment, installed, store
from .context import Deploy
from .installed import InstallState
from .journal import Journal
from .prefix import SHIM_NAME, Prefix


def needed(prefix: Prefix) -> bool:
    """Whether something is to be repaired, or a deploy was interrupted."""
    known = installed.read(prefix)
    return bool(
        os.path.lexists(prefix.journal)
        or os.path.lexists(prefix.before)
        or any(prefix.folder.glob(f".{prefix.journal.name}.*"))  # killed while it wrote its first step
        or installed.damage(prefix)
        or installed.unlisted(prefix, known, unfinished=_unfinished(prefix))
        or (prefix.active() != known.active and (known.find(prefix.active()) or prefix.has(known.active)))
    )


def prepare(deploy: Deploy) -> None:
    """Sweep, and repair the state and `current`. Says what it changed."""
    _sweep(deploy)
    _open_folders(deploy)
    _mend_state(deploy)
    _mend_restore_point(deploy)
    _mend_current(deploy)


def _sweep(deploy: Deploy) -> None:
    """Delete what killed processes left: nobody else writes here while the lock is held."""
    prefix, definition = deploy.prefix, Path(deploy.manager.registration.file)
    for path in (prefix.folder / "lock.owner", prefix.folder / f"{prefix.current.name}.new"):
        store.delete(path)  # the first is of an earlier version
    records.sweep(prefix.folder, prefix.state.name, prefix.journal.name, "lock.owner")
    records.sweep(prefix.shim.parent, SHIM_NAME)
    records.sweep(prefix.logs, "failed-*")
    records.sweep(definition.parent, definition.name)
    for folder in prefix.releases.glob("*/"):
        if prefix.has(folder.name):
            records.sweep(folder, *built.ADDED_LATER)
    temporary.sweep(prefix.temporary)


def _open_folders(deploy: Deploy) -> None:
    """Let the user of a system daemon into the folders of root's prefix, whatever umask they were made with."""
    prefix, manager = deploy.prefix, deploy.manager
    if manager.account in (None, manager.owner):
        return
    for path in (prefix.folder, prefix.releases, *prefix.beside, prefix.shim.parent, prefix.logs):
        with suppress(OSError):
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode) and (found.st_mode & 0o755) != 0o755:
                path.chmod(stat.S_IMODE(found.st_mode) | 0o755)


def _mend_state(deploy: Deploy) -> None:
    prefix, console = deploy.prefix, deploy.console
    why = installed.damage(prefix)
    known = InstallState() if why else installed.read(prefix)
    unlisted = installed.unlisted(prefix, known, unfinished=_unfinished(prefix))
    if known.releases and unlisted:
        console.warn(f"{prefix.state} lacks releases that are installed: {', '.join(one.id for one in unlisted)}")
        known = replace(known, releases=(*unlisted, *known.releases))
        installed.write(prefix, known)
    elif why or unlisted:
        if why:
            console.warn(f"{prefix.state}: {why}; it is kept as {store.set_aside(prefix.state).name}")
        known = installed.rebuilt(prefix, unfinished=_unfinished(prefix), running=_running(deploy))
        if not known.releases:
            return
        ids = ", ".join(one.id for one in known.releases)
        console.warn(f"{prefix.state} is rebuilt from what is installed: {ids}; active: {known.active}")
        if place := deploy.manager.find(prefix.shim):
            known = known.registered(place, "")  # what is loaded may be another definition
        installed.write(prefix, known)
    if doubt := _doubt(deploy, known):
        console.warn(f"{prefix.state}: {doubt}; it is left alone")
        known = replace(known, label="", domain="", unit_file="", unit_sha256="")
        if place := deploy.manager.find(prefix.shim):
            known = known.registered(place, "")
        installed.write(prefix, known)
    active = prefix.active()
    if active != known.active and known.find(active) and not os.path.lexists(prefix.journal):
        console.warn(f"{prefix.state} says that {known.active or 'no release'} is active, but {active} is")
        known = known.activated(active)
        installed.write(prefix, known)
    installed.note(prefix, known)


def _doubt(deploy: Deploy, known: InstallState) -> str:
    """Why the registration in a state is not our service; empty if it is, or if there is none."""
    stated, ours = known.registration(), deploy.manager.registration
    if not stated or stated == replace(ours, manager=stated.manager and ours.manager):
        return ""
    try:
        manager = managers.of_kind(stated, deploy.config.deploy, deploy.prefix.folder)
    except ConfigError as error:
        return error.message
    return manager.doubt(stated, deploy.prefix.shim)


def _mend_restore_point(deploy: Deploy) -> None:
    """Set a restore point aside that would restore what no deploy wrote: it is put back by renames."""
    prefix = deploy.prefix
    link, state, given = (prefix.before / name for name in ("current", "state", environment.FILE_NAME))
    doubt = f"{link} points to no release" if os.path.lexists(link) and not prefix.linked(link) else ""
    doubt = doubt or installed.damage(prefix, state)
    doubt = doubt or _doubt(deploy, installed.read(prefix, state))
    if not doubt and os.path.lexists(given):
        plain = given.is_file() and not given.is_symlink()
        doubt = environment.doubt(given.read_text(errors="replace")) if plain else f"{given} is not a file"
    if doubt:
        deploy.console.warn(f"{prefix.before}: {doubt}; it is kept as {store.set_aside(prefix.before).name}")


def _mend_current(deploy: Deploy) -> None:
    """Point `current` to the active release again when it points to none, or is no link."""
    prefix, console = deploy.prefix, deploy.console
    known = installed.read(prefix)
    if prefix.active():
        return
    if prefix.current.is_symlink():
        console.warn(f"{prefix.current} points to {prefix.current.readlink()}, which is no release of this prefix")
        prefix.current.unlink()
    elif os.path.lexists(prefix.current):
        console.warn(f"{prefix.current} is not a link; it is kept as {store.set_aside(prefix.current).name}")
    if prefix.has(known.active):
        console.warn(f"{prefix.current} points to {known.active} again")
        store.swap(known.active, prefix)


def _unfinished(prefix: Prefix) -> str:
    """The release that an interrupted install was for."""
    with suppress(RecordError):
        if (entry := Journal(prefix.journal).read()) and entry.operation == "install":
            return entry.release
    return ""


def _running(deploy: Deploy) -> str:
    """Id of the release whose program the service runs; empty if it runs none."""
    with suppress(ToolchainError, psutil.Error, ValueError):  # no process, or one of another user
        releases = os.path.realpath(deploy.prefix.releases) + os.sep
        for word in psutil.Process(deploy.manager.inspect().pid or -1).cmdline():
            if word.startswith(releases):
                return Path(word.removeprefix(releases)).parts[0]
    return ""
