"""Who is logged in, and which domains that makes: the emulator's model of a Mac's sessions."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ...core.records import record
from ..launchctl_codes import session_type
from .settings import Settings

SYSTEM = "system"
AGENTS, DAEMONS, USERS = "LaunchAgents", "LaunchDaemons", "Users"
LOGIN_WINDOW, NO_SCREEN = "loginwindow", "none"


@record
class Sessions:
    """The uids that have sessions. They outlive the emulator's process."""

    gui: tuple[int, ...]
    """logged in at the screen; the last one is in front of it"""
    users: tuple[int, ...]
    """had a session of any kind since the boot"""

    def login(self, uid: int) -> Sessions:
        """With `uid` logged in at the screen, in front of the others."""
        return replace(self.began(uid), gui=(*(one for one in self.gui if one != uid), uid))

    def logout(self, uid: int) -> Sessions:
        """Without the screen session of `uid`. Its user domain stays until the next boot."""
        return replace(self, gui=tuple(one for one in self.gui if one != uid))

    def began(self, uid: int) -> Sessions:
        """With a session of `uid` away from the screen, as over SSH."""
        return self if uid in self.users else replace(self, users=(*self.users, uid))


def initial(settings: Settings) -> Sessions:
    """A fresh emulator's: an ordinary caller is logged in at the screen; for root nobody is."""
    caller = () if settings.root or not settings.screen else (os.getuid(),)
    return Sessions(gui=caller, users=caller)


def after_boot() -> Sessions:
    """Nobody has logged in yet."""
    return Sessions(gui=(), users=())


def domains(sessions: Sessions, settings: Settings) -> tuple[str, ...]:
    """The domains that exist. An ordinary caller has a session, namely the one that it calls from."""
    if settings.domains:
        return settings.domains
    users = sessions.users if settings.root else sessions.began(os.getuid()).users
    return (*(f"gui/{uid}" for uid in sessions.gui), *(f"user/{uid}" for uid in users), SYSTEM)


def manager_name(sessions: Sessions, settings: Settings) -> str:
    """The caller's own session, as `launchctl managername` calls it."""
    if settings.root:
        return session_type(SYSTEM)
    own = f"gui/{os.getuid()}"
    return session_type(own if own in domains(sessions, settings) else "user")


def console(sessions: Sessions, settings: Settings) -> str:
    """The uid of the user in front of the screen, `loginwindow` when nobody is, or `none` without a screen."""
    if not settings.screen:
        return NO_SCREEN
    return str(sessions.gui[-1]) if sessions.gui else LOGIN_WINDOW


def owner(domain: str) -> int | None:
    """The uid of a gui or user domain; None of system."""
    uid = domain.partition("/")[2]
    return int(uid) if uid else None


def library(root: Path, uid: int) -> Path:
    """The folder in which the emulator at `root` has LaunchAgents of a user; the caller's own is `root` itself."""
    return root if uid == os.getuid() else root / USERS / str(uid)


def folder(root: Path, domain: str) -> Path:
    """The folder whose property lists a boot or a login loads into `domain`."""
    uid = owner(domain)
    return root / DAEMONS if uid is None else library(root, uid) / AGENTS
