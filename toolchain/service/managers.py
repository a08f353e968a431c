"""All service managers, and the choice between them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ..core.config import DeployConfig
from . import launchd
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
    kind = config.service_manager
    if kind == "auto":
        kind = "launchd" if sys.platform == "darwin" else "emulator"
    return MANAGERS[kind](config, home, loaded_in)
