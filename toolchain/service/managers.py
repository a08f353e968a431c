"""All service managers, and the choice between them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..core.config import DeployConfig
from . import account, placement
from .account import Machine
from .emulator import manager as emulator
from .manager import Manager, Registration

MANAGERS: dict[str, Callable[[DeployConfig, Path, str], Manager]] = {
    "launchd": placement.manager,
    "emulator": emulator.manager,
    "standin": emulator.manager,  # its former name
}
"""by the value of deploy.service_manager"""
_OF_THIS_MACHINE = "launchd" if sys.platform == "darwin" else "emulator"


def choose(config: DeployConfig, home: Path, *, loaded_in: str = "") -> Manager:
    """The service that the configuration names. Raises `ConfigError` when it is unavailable on this machine.

    The emulator keeps its files in `home`. `loaded_in` is the domain that the service was installed in,
    which an automatic choice keeps while the service is loaded there or nowhere.
    """
    return MANAGERS[_kind(config)](config, home, loaded_in)


def registered(registration: Registration, config: DeployConfig, home: Path) -> Manager:
    """The service of a registration, with the manager that it was registered with. Raises as `choose`."""
    return of_kind(registration, config, home).adopt(registration)


def of_kind(registration: Registration, config: DeployConfig, home: Path) -> Manager:
    """The configured service with the manager that a registration names, in the domain that it names.

    An earlier version, which did not note the manager, knew launchd and the emulator: it was the configured one of
    these, else this machine's.
    """
    kind = registration.manager if registration.manager in MANAGERS else _kind(config)
    if not registration.manager and kind not in ("launchd", "emulator", "standin"):
        kind = _OF_THIS_MACHINE
    return MANAGERS[kind](replace(config, domain=registration.domain or "auto"), home, "")


def machine(config: DeployConfig) -> Machine:
    """What decides about the account of the service. Raises `ConfigError`."""
    kind = _kind(config)
    if MANAGERS[kind] is placement.manager:
        return account.this_mac()
    if MANAGERS[kind] is emulator.manager:
        return emulator.machine(account.prefixes(config, account.ORDINARY)[0])
    return account.ORDINARY


def _kind(config: DeployConfig) -> str:
    return _OF_THIS_MACHINE if config.service_manager == "auto" else config.service_manager
