"""The layout of an installation's prefix."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..core.config import Config
from ..core.errors import ReleaseInvalid
from ..service import account, managers

SHIM_NAME = "turboquant-ollama"
_RELEASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}")
TEMPORARY = ".new-"
"""name prefix of a release that is being copied; anything with it may be deleted"""
DISCARDED = ".old-"
"""name prefix of a release that is being deleted"""


@dataclass(frozen=True)
class Prefix:
    """The paths in one prefix. Outside of it we only write the definition that the manager reads."""

    folder: Path

    @classmethod
    def of(cls, config: Config) -> Prefix:
        """The prefix that the configuration names. Of the default places, one with an installation is preferred.

        Raises `ConfigError`.
        """
        found = [cls(path) for path in account.prefixes(config.deploy, managers.machine(config.deploy))]
        return next((one for one in found if one.is_used()), found[0])

    def is_used(self) -> bool:
        """Whether something is installed, or a deploy was interrupted; False when that cannot be read."""
        return any(map(os.path.lexists, (self.state, self.current, self.journal)))

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
        """The intent journal; absent when no deploy is in progress."""
        return self.folder / "journal.json"

    @property
    def lock(self) -> Path:
        """The lock of the deploying process."""
        return self.folder / "lock"

    @property
    def shim(self) -> Path:
        """The program that the manager starts."""
        return self.folder / "bin" / SHIM_NAME

    @property
    def claims(self) -> Path:
        """Folder of the shim's claims, which tell the copy that serves from one that waits."""
        return self.folder / "run"

    @property
    def logs(self) -> Path:
        """Folder of the service's log and of the logs of failed releases."""
        return self.folder / "logs"

    @property
    def owner(self) -> str:
        """Name of the user to whom it belongs, for messages."""
        try:
            return self.folder.owner()
        except (OSError, KeyError):
            return "its owner"

    def release(self, identifier: str) -> Path:
        """Directory of a release. Raises `ReleaseInvalid` for an id that could be a path outside of releases/."""
        if not _RELEASE_ID.fullmatch(identifier):
            raise ReleaseInvalid(f"{identifier!r} is not a release id", hint="./inv deploy.status lists the releases")
        return self.releases / identifier

    def active(self) -> str:
        """Id of the release that `current` points to; may be empty."""
        return self.current.readlink().name if self.current.is_symlink() else ""
