"""The layout of an installation's prefix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..core.config import Config
from ..core.errors import ReleaseInvalid

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
        """The intent journal; absent when no deploy is in progress."""
        return self.folder / "journal.json"

    @property
    def before(self) -> Path:
        """What restoring the previous release takes; absent when no deploy is in progress."""
        return self.folder / "before"

    @property
    def run(self) -> Path:
        """Folder that the shim writes to: when it started which release, and whether it fell back to a parent."""
        return self.folder / "run"

    @property
    def lock(self) -> Path:
        """The lock of the deploying process."""
        return self.folder / "lock"

    @property
    def shim(self) -> Path:
        """The program that the manager starts."""
        return self.folder / "bin" / SHIM_NAME

    @property
    def logs(self) -> Path:
        """Folder of the service's log and of the logs of failed releases."""
        return self.folder / "logs"

    def release(self, identifier: str) -> Path:
        """Directory of a release. Raises `ReleaseInvalid` for an id that could be a path outside of releases/."""
        if not _RELEASE_ID.fullmatch(identifier):
            raise ReleaseInvalid(f"{identifier!r} is not a release id", hint="./inv deploy.status lists the releases")
        return self.releases / identifier

    def active(self) -> str:
        """Id of the release that `current` points to; may be empty."""
        return self.current.readlink().name if self.current.is_symlink() else ""
