"""All service managers, and the choice between them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ..core.config import DeployConfig
from . import account, launchd
from .account import Machine
from .emulator import manager as emulator
from .manager import Manager

MANAGERS: dict[str, Callable[[DeployConfig, Path, str], Manager]] = {
    "launchd": launchd.manager,
    "emulator": emulator.manager,
    "standin": emulator.manager,  # its former name
}
"""by the value of deploy.service_manager"""


def choose(config: DeployConfig, home: Path, *, loaded_in: str = "") -> Manager:
    """The service that the configuration names. Raises `ConfigError` when it is unavailable on this machine.

    The emulator keeps its files in `home`. `loaded_in` is the domain that the service was installed in,
    which an automatic choice keeps.
    """
    return MANAGERS[_kind(config)](config, home, loaded_in)


def machine(config: DeployConfig) -> Machine:
    """What decides about the account of the service. Raises `ConfigError`."""
    kind = _kind(config)
    if MANAGERS[kind] is launchd.manager:
        return account.this_mac()
    if MANAGERS[kind] is emulator.manager:
        return emulator.machine(account.prefixes(config, account.ORDINARY)[0])
    return account.ORDINARY


def _kind(config: DeployConfig) -> str:
    if config.service_manager != "auto":
        return config.service_manager
    return "launchd" if sys.platform == "darwin" else "emulator"
