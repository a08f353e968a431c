"""Whom a job runs as: setuid where the emulator is root, the caller everywhere else."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager

from ...core.records import record
from . import sessions


@record
class Identity:
    """A user with all its groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def of_job(domain: str, user: str) -> Identity | None:
    """Whom a job of `domain` with UserName `user` runs as; None: as the emulator itself.

    UserName counts in the system domain only, see launchd.plist(5). Raises `LookupError` for an unknown user.
    """
    if os.geteuid() != 0:
        return None
    uid = sessions.owner(domain)
    if uid is None:
        return _identity(pwd.getpwnam(user)) if user else None
    return None if uid == os.getuid() else _identity(pwd.getpwuid(uid))


@contextmanager
def assumed(identity: Identity | None) -> Iterator[None]:
    """Open files as that user would. The emulator has one thread, so nothing else runs meanwhile."""
    if identity is None:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups(identity.groups)
    os.setegid(identity.gid)
    os.seteuid(identity.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def _identity(found: pwd.struct_passwd) -> Identity:
    groups = tuple(os.getgrouplist(found.pw_name, found.pw_gid))
    return Identity(uid=found.pw_uid, gid=found.pw_gid, groups=groups)
