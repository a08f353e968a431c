"""All service managers, and the choice between them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.config import DeployConfig
from . import account, placement
from .account import Machine
from .emulator import manager as emulator
from .manager import Manager, Registration
from .systemd import placement as systemd
from .systemd import systemctl


@dataclass(frozen=True)
class Kind:
    """A service manager. `make` gives the configured service, kept in a folder and formerly loaded in a domain.

    `machine` tells what decides about the account; `lacks` why the manager cannot be used here, empty if it can.
    """

    make: Callable[[DeployConfig, Path, str], Manager]
    machine: Callable[[DeployConfig], Machine] = lambda _config: account.ORDINARY
    title: str = ""
    """what it is, for a reader"""
    lacks: Callable[[], str] = lambda: ""


_EMULATOR = Kind(
    make=emulator.manager,
    machine=lambda config: emulator.machine(account.prefixes(config, account.ORDINARY)[0]),
    title="the emulator of launchd",
)
MANAGERS: dict[str, Kind] = {
    "launchd": Kind(
        make=placement.manager, machine=lambda _config: account.this_mac(), title="launchd", lacks=placement.lacks
    ),
    "systemd": Kind(make=systemd.manager, machine=systemd.machine, title="systemd", lacks=systemctl.lacks),
    "emulator": _EMULATOR,
    "standin": _EMULATOR,  # its former name
}
"""by the value of deploy.service_manager"""
_OF_THIS_MACHINE = "launchd" if sys.platform == "darwin" else "emulator"


def choose(config: DeployConfig, home: Path, *, loaded_in: str = "") -> Manager:
    """The service that the configuration names. Raises `ConfigError` when it is unavailable on this machine.

    The emulator keeps its files in `home`. `loaded_in` is the domain that the service was installed in,
    which an automatic choice keeps while the service is loaded there or nowhere.
    """
    return kind(config).make(config, home, loaded_in)


def registered(registration: Registration, config: DeployConfig, home: Path) -> Manager:
    """The service of a registration, with the manager that it was registered with. Raises as `choose`."""
    return of_kind(registration, config, home).adopt(registration)


def of_kind(registration: Registration, config: DeployConfig, home: Path) -> Manager:
    """The configured service with the manager that a registration names, in the domain that it names.

    An earlier version, which did not note the manager, knew launchd and the emulator: it was the configured one of
    these, else this machine's.
    """
    name = registration.manager if registration.manager in MANAGERS else _name(config)
    if not registration.manager and name not in ("launchd", "emulator", "standin"):
        name = _OF_THIS_MACHINE
    return MANAGERS[name].make(replace(config, domain=registration.domain or "auto"), home, "")


def machine(config: DeployConfig) -> Machine:
    """What decides about the account of the service. Raises `ConfigError`."""
    return kind(config).machine(config)


def kind(config: DeployConfig) -> Kind:
    """The configured manager."""
    return MANAGERS[_name(config)]


def _name(config: DeployConfig) -> str:
    return _OF_THIS_MACHINE if config.service_manager == "auto" else config.service_manager
