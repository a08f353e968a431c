"""The emulator as a manager: launchd's driver over the emulator's command."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...core import process
from ...core.config import DeployConfig
from .. import account, launchd, placement
from ..account import Machine
from . import launchctl, sessions, settings
from .verbs import CONSOLE_VERB

_COMMAND = (sys.executable, "-I", "-S", launchctl.__file__)
_TIMEOUT_S = 60.0


def manager(config: DeployConfig, home: Path, loaded_in: str) -> launchd.LaunchdManager:
    """The emulator whose root is `home`/launchd; `loaded_in` is as in `placement.connect`."""
    root = home / "launchd"
    environment = {launchctl.ROOT_VARIABLE: str(root)}
    found = placement.connect(config, _COMMAND, environment, loaded_in, partial(sessions.folder, root), machine(home))
    if found.owner.uid != os.getuid() and account.is_root() and not config.agents_dir:
        with account.as_root():  # a Library of that user, in a folder of root's
            for folder in (root / sessions.USERS, found.plist.parent.parent, found.plist.parent):
                folder.mkdir(exist_ok=True)
                folder.chmod(0o755)
            shutil.chown(found.plist.parent, found.owner.uid, found.owner.gid)
    return replace(found, name="emulator")


def machine(home: Path) -> Machine:
    """The Mac that the emulator in `home`/launchd plays."""
    root = home / "launchd"
    with account.as_root():
        try:
            if not settings.read(root).root or root.stat().st_uid != os.getuid():
                return account.ORDINARY
        except OSError:
            return account.ORDINARY  # another user's
        words = (*_COMMAND, CONSOLE_VERB)
        said = process.run(words, env={launchctl.ROOT_VARIABLE: str(root)}, timeout=_TIMEOUT_S).output.strip()
    user = account.of_uid(int(said)).name if said.isdecimal() else ""
    return Machine(root=True, console_user=user)
