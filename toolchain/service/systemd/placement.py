"""Which unit a configuration means: its domain, its file and its account."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ...core.config import DeployConfig
from ...core.errors import ConfigError, ManagerUnavailable
from .. import account, placement
from ..account import Account, Machine
from . import unitfile
from .manager import SystemdManager

SYSTEM_PREFIX = Path("/opt/turboquant")
_COMMAND = ("systemctl",)
_SYSTEM = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
_USERS = ("/etc/systemd/user", "/run/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user")


def machine(_config: DeployConfig) -> Machine:
    """What systemd knows of the caller: root may change every unit."""
    return Machine(root=account.is_root(), system_prefix=SYSTEM_PREFIX)


def manager(config: DeployConfig, _home: Path, loaded_in: str) -> SystemdManager:
    """The configured unit. `loaded_in` is the domain that it was installed in: an automatic choice keeps it, unless the
    unit is active in another one only. Root's is system.

    Raises `ConfigError` without systemd, and for a domain of launchd's.
    """
    if sys.platform != "linux":
        raise ConfigError("deploy.service_manager: systemd is only on Linux", hint="auto uses launchd on a Mac")
    facts = machine(config)
    if config.domain.startswith("gui/"):
        raise ConfigError(f"deploy.domain: {config.domain} is launchd's", hint="systemd has auto, user and system")
    if config.domain != "auto":
        return _at(account.domain(config, facts), config, facts)
    if loaded_in.startswith("gui/") or not placement.is_own(loaded_in, config, facts):  # launchd's, or anybody's
        return _at(account.SYSTEM if facts.root else f"user/{account.caller().uid}", config, facts)
    kept = _at(loaded_in, config, facts)
    try:
        elsewhere = () if kept.inspect().loaded else kept.instances()
    except ManagerUnavailable:
        return kept
    return _at(elsewhere[0].manager.registration.domain, config, facts) if elsewhere else kept


def _at(domain: str, config: DeployConfig, facts: Machine) -> SystemdManager:
    user = account.find(config, domain, facts)
    own = _own_folder(user) if user else None
    folder = Path(_SYSTEM[0]) if domain == account.SYSTEM or own is None else own
    if config.agents_dir:
        folder = account.expand(config.agents_dir, config, facts)
    file = folder / f"{config.label}{unitfile.SUFFIX}"
    if domain == account.SYSTEM:  # the user of an installed unit stays
        installed = unitfile.entries(unitfile.content(file)).get("Service.User", "")
        user = account.find(config, domain, facts, installed=installed)
    folders: list[tuple[str, tuple[Path, ...]]] = []
    if user and own:
        folders.append((f"user/{user.uid}", (own, *map(Path, _USERS))))
    folders.append((account.SYSTEM, tuple(map(Path, _SYSTEM))))
    return SystemdManager(
        command=_COMMAND,
        domain=domain,
        label=config.label,
        file=file,
        account=user,
        owner=user if user and domain != account.SYSTEM else account.caller(),
        folders=tuple(folders),
    )


def _own_folder(user: Account) -> Path:
    stated = os.environ.get("XDG_CONFIG_HOME", "") if user.is_caller else ""
    return Path(stated or user.home / ".config") / "systemd/user"
