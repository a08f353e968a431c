"""The emulator as a manager: launchd's driver over the emulator's command."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from ...core.config import DeployConfig
from .. import launchd
from . import launchctl, sessions


def manager(config: DeployConfig, home: Path, loaded_in: str) -> launchd.LaunchdManager:
    """The emulator whose root is `home`/launchd; `loaded_in` is as in `launchd.connect`."""
    root = home / "launchd"
    command = (sys.executable, "-I", "-S", launchctl.__file__)
    environment = {launchctl.ROOT_VARIABLE: str(root)}
    return launchd.connect(config, command, environment, loaded_in, partial(sessions.folder, root))
