"""The layout of an installation's prefix."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.config import Config
from ..core.errors import ConfigError, PrefixInvalid, ReleaseInvalid
from ..service import account, managers

SHIM_NAME = "turboquant-ollama"
_LOG_NAME = "ollama.log"
"""of every program, as of Ollama's first: the definition names it, and stays the same when the program changes"""
_RELEASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}")
TEMPORARY = ".new-"
"""name prefix of a release that is being copied; anything with it may be deleted"""
DISCARDED = ".old-"
"""name prefix of a release that is being deleted"""


def is_release_id(text: str) -> bool:
    """Whether a text can be the id of a release, and so a name in releases/."""
    return bool(_RELEASE_ID.fullmatch(text))


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
    def presets(self) -> Path:
        """Folder of the files that environments name: which models a llama-server has, if they are several."""
        return self.folder / "presets"

    @property
    def calibrations(self) -> Path:
        """Folder of the folders that environments name: how the keys of models are stored."""
        return self.folder / "calibrations"

    @property
    def beside(self) -> tuple[Path, Path]:
        """The folders of what environments name, beside the releases."""
        return self.presets, self.calibrations

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
        """Folder that the shim writes to: which copy serves, when it started which release, whether it fell back."""
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

    @property
    def log(self) -> Path:
        """stdout and stderr of the service, whichever program it is."""
        return self.logs / _LOG_NAME

    @property
    def owner(self) -> str:
        """Name of the user to whom it belongs, for messages."""
        try:
            return self.folder.owner()
        except (OSError, KeyError):
            return "its owner"

    @property
    def temporary(self) -> Path:
        """Folder of temporary folders."""
        return self.folder / "tmp"

    def check(self) -> None:
        """Raises `PrefixInvalid` when a folder that a deploy fills and empties leads out of the prefix."""
        for folder in (self.releases, *self.beside, self.shim.parent, self.run, self.temporary, self.before):
            real = Path(os.path.realpath(folder))
            if folder.is_symlink() and not real.is_relative_to(os.path.realpath(self.folder)):
                raise PrefixInvalid(
                    f"{folder} is a link out of the prefix, to {real}",
                    hint="replace it by a folder, or set deploy.prefix to a folder where the releases may be",
                )
            if os.path.lexists(folder) and not folder.is_dir():
                raise PrefixInvalid(f"{folder} is not a folder", hint="move it away")

    def has(self, identifier: str) -> bool:
        """Whether releases/ has a directory of that id; a link to one is none."""
        folder = self.releases / identifier
        return is_release_id(identifier) and folder.is_dir() and not folder.is_symlink()

    def release(self, identifier: str) -> Path:
        """Directory of a release. Raises `ReleaseInvalid` for an id that could be a path outside of releases/."""
        if not is_release_id(identifier):
            raise ReleaseInvalid(f"{identifier!r} is not a release id", hint="./inv deploy.status lists the releases")
        return self.releases / identifier

    def active(self) -> str:
        """Id of the release that `current` points to; empty when that is no directory in releases/."""
        return self.linked(self.current)

    def linked(self, link: Path) -> str:
        """Id of the release that such a link points to; empty when that is no directory in releases/."""
        if not link.is_symlink():
            return ""
        target = link.readlink()
        inside = target in (Path(self.releases.name, target.name), self.releases / target.name)
        return target.name if inside and self.has(target.name) else ""


def settled(config: Config) -> Config:
    """With the prefix that is used, where root need not be told more to know it."""
    try:
        found = str(Prefix.of(config).folder)
    except ConfigError:
        return config
    return replace(config, deploy=replace(config.deploy, prefix=found))
