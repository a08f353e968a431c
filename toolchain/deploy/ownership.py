"""Whose an installation is: who may change it, and who must be able to reach it.

The prefix of an agent belongs to its user, that of a daemon to root. Nobody else may be able to change or replace what
the service executes, and the service's user must get there. Where root works in a user's prefix, it has that user's
rights only.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..core import records
from ..core.errors import PrefixUnsafe
from ..service import account
from ..service.account import Account
from ..service.manager import Manager
from . import interpreter
from .prefix import Prefix

_SUDO = "run it with sudo, or set deploy.prefix to a folder of yours"
_UMASK = 0o022
_ADMINISTRATORS = frozenset({0, 80} if sys.platform == "darwin" else {0})
"""groups whose members can become root anyway: wheel and admin"""


@contextmanager
def rights(prefix: Prefix) -> Iterator[None]:
    """As root, have only the rights of the user who owns the prefix, for as long as this lasts.

    Raises `PrefixUnsafe` when the caller cannot look into the prefix, and `ConfigError` when its owner is unknown.
    """
    status = _status(prefix.folder)
    if status is None or not account.is_root():
        if status is not None and not os.access(prefix.folder, os.R_OK | os.X_OK):
            raise _unsafe(prefix.folder, status, "you cannot look into it", hint=_SUDO)
        yield
        return
    owner = account.of_uid(status.st_uid, f"deploy.prefix: {prefix.folder}")
    if owner.uid != 0:
        interpreter.load_all()
    _check_reach(prefix.folder, owner)
    with account.acting(owner):
        yield


@contextmanager
def claim(prefix: Prefix, manager: Manager) -> Iterator[None]:
    """Check that the prefix is safe to change for the manager's service, make it, and have its owner's rights.

    What is made meanwhile can be read by all and written by its owner alone, whatever the umask is. Raises
    `PrefixUnsafe`, and `ConfigError` when root would have to guess the service's account.
    """
    if account.is_root() and manager.owner.uid != 0:
        interpreter.load_all()
    check(prefix, manager)
    before = os.umask(_UMASK)
    try:
        with account.acting(manager.owner):
            yield
    finally:
        os.umask(before)


def may_change(prefix: Prefix) -> bool:
    """Whether the caller owns the prefix or is root; if not, it can only look."""
    status = _status(prefix.folder)
    return status is None or account.is_root() or status.st_uid == os.getuid()


def check(prefix: Prefix, manager: Manager) -> None:
    """Raises `PrefixUnsafe` when the prefix is not its owner's alone, or when the service's user cannot reach it.

    Raises `ConfigError` when root would have to guess the service's account.
    """
    owner, user = manager.owner, account.known(manager.account)
    _check_owner(prefix, owner)
    _check_parents(prefix.folder, owner, user)
    _check_content(prefix, owner, user)
    _check_reach(prefix.folder, user)


def user_of_logs(prefix: Prefix) -> str:
    """The user to whom root gave logs/ for a daemon; empty if there is none."""
    status, whole = _status(prefix.logs), _status(prefix.folder)
    if not status or not whole or whole.st_uid != 0 or status.st_uid == 0:
        return ""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(status.st_uid).pw_name
    return ""


def prepare_logs(prefix: Prefix, log: Path, user: Account | None) -> None:
    """Make the folders in which the service's user may write, and give it these, its present log and a former user's.

    Raises `PrefixUnsafe` when root would follow a link there.
    """
    folders = (prefix.logs, prefix.run)
    for folder in folders:
        records.make_folder(folder)
    if os.geteuid() != 0 or user is None or user.uid == 0:
        return
    for path, kind in (*((folder, os.O_DIRECTORY) for folder in folders), (log, os.O_CREAT)):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | kind, 0o644)
        except OSError as error:
            raise _not_plain(path) from error
        try:
            _require_plain(path, os.fstat(descriptor))
            os.fchown(descriptor, user.uid, user.gid)
            if kind == os.O_DIRECTORY:
                _hand_over(descriptor, user)
        finally:
            os.close(descriptor)


def _hand_over(folder: int, user: Account) -> None:
    """Give the plain files of a former user in an open folder to `user`."""
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # a link, or gone
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            try:
                status = os.fstat(descriptor)
                plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
                if plain and status.st_uid not in (0, user.uid):
                    os.fchown(descriptor, user.uid, user.gid)
            finally:
                os.close(descriptor)


def open_log(path: Path) -> IO[bytes]:
    """Open a log to read it. For root it must be no link either, lest its writer make root read another file.

    Raises `PrefixUnsafe` for what is no file, also for who must not read it, and `FileNotFoundError`.
    """
    root = os.geteuid() == 0
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if root else 0))
    except FileNotFoundError:
        raise
    except OSError as error:
        if root:
            raise _not_plain(path) from error
        if isinstance(error, PermissionError):
            raise PrefixUnsafe(f"{path}: {error.strerror}", hint="run it with sudo") from error
        raise
    try:
        if not stat.S_ISREG((status := os.fstat(descriptor)).st_mode):
            raise PrefixUnsafe(f"{path}: not a file", hint="look at it, and delete it")
        if root:
            _require_plain(path, status)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_owner(prefix: Prefix, owner: Account) -> None:
    status = _status(prefix.folder)
    if not (owner.is_caller or account.is_root()):
        raise PrefixUnsafe(
            f"{prefix.folder}: this service belongs to {owner.name}, and you are another user", hint=_SUDO
        )
    if status is None or status.st_uid == owner.uid:
        return
    holder = account.name_of(status.st_uid)
    if not account.is_root():
        raise PrefixUnsafe(f"deploy.prefix: {prefix.folder} belongs to {holder}, and you are {owner.name}", hint=_SUDO)
    raise PrefixUnsafe(
        f"deploy.prefix: {prefix.folder} belongs to {holder}, but this service needs a prefix of {owner.name}",
        hint=f"set deploy.prefix to another folder, or deploy.domain to user/{status.st_uid}",
    )


def _check_parents(folder: Path, owner: Account, user: Account) -> None:
    """Nobody else may be able to rename or replace a folder on the way."""
    # A container's root, whose service is root's as well, works in folders that belong to users outside.
    contained = sys.platform != "darwin" and user.uid == 0
    for path in _way(folder):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            if status.st_uid not in (0, owner.uid) and not contained:
                raise _unsafe(path, status, f"{account.name_of(status.st_uid)} can point it elsewhere")
            continue
        if status.st_uid not in (0, owner.uid) and not contained and path != Path("/"):
            raise _unsafe(
                path, status, f"it belongs to {account.name_of(status.st_uid)}, who can replace what is in it"
            )
        if not status.st_mode & stat.S_ISVTX and (others := _writers(status, owner, _ADMINISTRATORS)):
            raise _unsafe(path, status, f"{others} can replace what is in it")


def _check_content(prefix: Prefix, owner: Account, user: Account) -> None:
    """Nobody else may be able to change what is in the prefix.

    Into logs/ and run/ the service's user writes, too. In a prefix of root's they may still be a former user's: root
    trusts nothing in there, and `prepare_logs` hands them over.
    """
    for path, status in _content(prefix):
        if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
            continue
        written = any(map(path.is_relative_to, (prefix.logs, prefix.run)))
        if status.st_uid not in (0, owner.uid, user.uid if written else 0) and not (written and owner.uid == 0):
            raise _unsafe(path, status, f"it belongs to {account.name_of(status.st_uid)}")
        if others := _writers(status, owner, frozenset()):
            raise _unsafe(path, status, f"{others} can change it")


def _check_reach(folder: Path, user: Account) -> None:
    with account.acting(user):
        for path in (*reversed(folder.parents), folder):
            try:
                os.stat(f"{path}/.")  # noqa: PTH116  pathlib drops the dot, which needs the right to enter
            except PermissionError:
                reason = f"{user.name} cannot enter it"
                raise _unsafe(path, path.stat(), reason, hint=f"chmod a+x {path}, or another deploy.prefix") from None
            except OSError:
                return  # from here on it is made by us


def _way(folder: Path) -> Iterator[Path]:
    """Every existing folder and link above `folder`, as it is written and as it is when links are followed."""
    seen = set()
    for written in (folder, Path(os.path.realpath(folder))):
        for path in reversed(written.parents):
            if path not in seen and os.path.lexists(path):
                seen.add(path)
                yield path


def _content(prefix: Prefix) -> Iterator[tuple[Path, os.stat_result]]:
    """The folder and what is in it, except in releases, which their manifests vouch for. Some may go meanwhile."""

    def below() -> Iterator[Path]:
        for root, folders, files in os.walk(prefix.folder):
            yield from (Path(root) / name for name in (*folders, *files))
            if Path(root) == prefix.releases:
                folders.clear()

    for path in (prefix.folder, *below()):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield path, path.lstat()


def _writers(status: os.stat_result, owner: Account, trusted_groups: frozenset[int]) -> str:
    """Who besides root and the owner may write; empty if nobody."""
    if status.st_mode & stat.S_IWOTH:
        return "everybody"
    if not status.st_mode & stat.S_IWGRP or status.st_gid in trusted_groups:
        return ""
    return "" if owner.uid and _is_private(status.st_gid, owner) else f"the group {_group(status.st_gid)}"


def _is_private(gid: int, owner: Account) -> bool:
    """Whether a group has no member but the user whose main group it is, as Linux makes one for each user."""
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        members = set()
    members |= {one.pw_name for one in pwd.getpwall() if one.pw_gid == gid}
    return gid == owner.gid and members <= {owner.name}


def _unsafe(path: Path, status: os.stat_result, why: str, hint: str = "") -> PrefixUnsafe:
    return PrefixUnsafe(
        f"deploy.prefix: {path} ({_shown(status)}): {why}",
        hint=hint or f"chmod go-w {path}, give it to the right user, or set deploy.prefix to another folder",
    )


def _shown(status: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(status.st_mode):04o}, {account.name_of(status.st_uid)}:{_group(status.st_gid)}"


def _not_plain(path: Path) -> PrefixUnsafe:
    return PrefixUnsafe(
        f"{path}: not a plain file or folder, and root does not follow links there", hint="look at it, and delete it"
    )


def _require_plain(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode) and (not stat.S_ISREG(status.st_mode) or status.st_nlink != 1):
        raise _not_plain(path)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
