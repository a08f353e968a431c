"""Which launchd service a configuration means: its domain, its property list and its account."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..core.config import DeployConfig
from ..core.errors import ConfigError, ManagerRefused, ManagerUnavailable
from . import account, propertylist
from .account import Account, Machine
from .launchd import DAEMONS, EVERYBODYS_AGENTS, LaunchdManager

_LAUNCHCTL = "/bin/launchctl"


def lacks() -> str:
    """Why launchd cannot be the manager on this machine; empty if it can."""
    return "" if Path(_LAUNCHCTL).exists() else f"{_LAUNCHCTL} does not exist: launchd is only on macOS"


def manager(config: DeployConfig, _home: Path, loaded_in: str) -> LaunchdManager:
    """The Mac's own launchd; `loaded_in` is as in `connect`.

    Raises `ConfigError` without launchd.
    """
    if sys.platform != "darwin":
        raise ConfigError("deploy.service_manager: launchd is only on macOS", hint="auto uses the emulator elsewhere")
    return replace(connect(config, (_LAUNCHCTL,), {}, loaded_in, machine=account.this_mac()), needs_root=True)


def connect(
    config: DeployConfig,
    command: tuple[str, ...],
    environment: dict[str, str],
    loaded_in: str,
    folder_of: Callable[[str], Path] | None = None,
    machine: Machine = account.ORDINARY,
) -> LaunchdManager:
    """The configured service, managed with `command`; its property list is in `folder_of` its domain, if given.

    `loaded_in` is the domain that it was installed in. An automatic domain stays the same, also over SSH without a user
    at the screen, unless the service is loaded in another one only, as after a reboot and a login. Root's is system.
    """

    def at(domain: str) -> LaunchdManager:
        daemon = domain == account.SYSTEM
        user = account.find(config, domain, machine)
        folder_in = folder_of or partial(_folder, user)
        folder = account.expand(config.agents_dir, config, machine) if config.agents_dir else folder_in(domain)
        plist = folder / f"{config.label}.plist"
        if daemon:  # the user of an installed daemon stays, whoever is at the screen now
            user = account.find(config, domain, machine, installed=propertylist.user_name(plist))
        own = (f"gui/{user.uid}", f"user/{user.uid}") if user else ()
        return LaunchdManager(
            command=command,
            environment=environment,
            domain=domain,
            label=config.label,
            plist=plist,
            account=user,
            owner=user if user and not daemon else account.caller(),
            folders=(*map(folder_in, (*own, account.SYSTEM)), *(() if folder_of else (EVERYBODYS_AGENTS,))),
        )

    if config.domain != "auto":
        return at(account.domain(config, machine))
    if not is_own(loaded_in, config, machine):
        user = account.find(config, "auto", machine) or account.caller()
        return at(account.SYSTEM) if machine.root else _automatic(at, user)
    kept = at(loaded_in)
    try:
        elsewhere = () if kept.look() else kept.instances()
    except (ManagerUnavailable, ManagerRefused):
        return kept
    return at(elsewhere[0].manager.registration.domain) if elsewhere else kept


def is_own(domain: str, config: DeployConfig, machine: Machine) -> bool:
    """Whether a domain that a state names can be this service's: nothing in a state is trusted."""
    kind, _, uid = domain.partition("/")
    if kind == account.SYSTEM or not uid.isdecimal():
        return domain == account.SYSTEM
    try:
        found = account.find(config, domain, machine)
    except ConfigError:
        return False
    return found is not None and found.uid == int(uid)


def _folder(user: Account | None, domain: str) -> Path:
    agents = user is not None and domain != account.SYSTEM
    return user.home / "Library/LaunchAgents" if user and agents else DAEMONS


def _automatic(at: Callable[[str], LaunchdManager], user: Account) -> LaunchdManager:
    """In gui/UID while that user is logged in at the screen, else in user/UID, which exists over SSH, too."""
    gui = at(f"gui/{user.uid}")
    return gui if gui.call("print", gui.domain).returncode == 0 else at(f"user/{user.uid}")
