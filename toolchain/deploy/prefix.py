"""The prefix of an installation: where things lie in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..core import locks
from ..core.config import Config
from ..core.errors import ReleaseInvalid

SHIM_NAME = "turboquant-ollama"
_RELEASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}")
TEMPORARY = ".new-"
"""prefix of a release that is being copied in; whatever bears it may be deleted"""
DISCARDED = ".old-"
"""prefix of a release on its way out"""


@dataclass(frozen=True)
class Prefix:
    """The paths of one prefix. Nothing outside it is ours, except the definition that the manager reads."""

    folder: Path

    @classmethod
    def of(cls, config: Config) -> Prefix:
        """The prefix that the configuration names."""
        return cls(Path(config.deploy.prefix).expanduser().absolute())

    @property
    def releases(self) -> Path:
        """Folder of the release directories."""
        return self.folder / "releases"

    @property
    def current(self) -> Path:
        """Symbolic link to the active release directory."""
        return self.folder / "current"

    @property
    def state(self) -> Path:
        """The installed releases and their parents."""
        return self.folder / "state.json"

    @property
    def journal(self) -> Path:
        """What the deploy that is under way intends; absent when none is."""
        return self.folder / "journal.json"

    @property
    def lock(self) -> Path:
        """Held by the one deployer."""
        return self.folder / "lock"

    @property
    def lock_owner(self) -> Path:
        """Process id of the lock's holder, for the message to the other one."""
        return locks.owner(self.lock)

    @property
    def shim(self) -> Path:
        """The program that the manager starts."""
        return self.folder / "bin" / SHIM_NAME

    @property
    def logs(self) -> Path:
        """Folder of the service's log and of the logs of failed releases."""
        return self.folder / "logs"

    def release(self, identifier: str) -> Path:
        """Directory of a release. Raises `ReleaseInvalid` for an id that could lead out of releases/."""
        if not _RELEASE_ID.fullmatch(identifier):
            raise ReleaseInvalid(f"{identifier!r} is not a release id", hint="./inv deploy.status lists the releases")
        return self.releases / identifier

    def active(self) -> str:
        """Id of the release that `current` points to; empty when there is none."""
        return self.current.readlink().name if self.current.is_symlink() else ""
