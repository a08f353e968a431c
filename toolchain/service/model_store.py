"""The folder of the service's models: deploy.models, checked as the service's account sees it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ..core.config import DeployConfig
from ..core.errors import ConfigError, ModelsUnavailable
from . import account
from .account import Account

VOLUMES = Path("/Volumes")
"""where macOS mounts further disks"""
_TEST_TIMEOUT_S = 20.0


def default(owner: Account) -> Path:
    """Ollama's own folder in the home of the service's account."""
    return owner.home / ".ollama/models"


def named(config: DeployConfig) -> Path:
    """The folder that deploy.models names. Raises `ConfigError` for a relative path."""
    path = account.with_home(config.models)
    if not path.is_absolute():
        raise ConfigError(
            f"deploy.models: {config.models!r} is not an absolute path",
            hint=f"the service has no current folder: set deploy.models to {path.absolute()}",
        )
    return path


def prepare(config: DeployConfig, owner: Account) -> None:
    """Make the folder that deploy.models names, if its parent exists, and check that the service can use it.

    Raises `ModelsUnavailable`, and `ConfigError` for a relative path.
    """
    if not config.models:
        return
    path = named(config)
    if (volume := _volume(path)) and not _mounted(volume):
        raise ModelsUnavailable(
            f"deploy.models: {path}: no volume is mounted at {volume}",
            hint=f"connect it; if {volume} is a folder that something made on the system disk, delete that first",
        )
    try:
        if not path.exists():
            _make(path, owner)
        if not path.is_dir():
            raise ModelsUnavailable(f"deploy.models: {path} is not a folder", hint="name the folder of the models")
    except OSError as error:
        raise ModelsUnavailable(f"deploy.models: {path}: {error.strerror}", hint="name another folder") from error
    for test, what in (("-r", "read"), ("-x", "enter"), ("-w", "write to")):
        if not allowed(test, path, owner):
            raise ModelsUnavailable(
                f"deploy.models: {owner.name} cannot {what} {path}",
                hint=f"let {owner.name} have it, with the folders above it, or set deploy.models to another folder",
            )


def require(variable: str, path: str) -> None:
    """Raises `ModelsUnavailable` when a release's environment names a folder that does not exist."""
    if path and not os.access(path, os.F_OK):
        raise ModelsUnavailable(
            f"{variable}: the release was installed with {path}, which does not exist",
            hint="mount its volume, or make the folder; then try again",
        )


def _make(path: Path, owner: Account) -> None:
    if not path.parent.is_dir():
        raise ModelsUnavailable(
            f"deploy.models: {path} does not exist, and {path.parent} is no folder",
            hint=f"mount the disk that it is on, or `mkdir -p {path.parent}`",
        )
    try:
        with account.acting(owner):
            path.mkdir(mode=0o755)
    except PermissionError:
        if os.geteuid() != 0 or account.keeper(path.parent) is not None:  # where a user could lead root elsewhere
            raise
        path.mkdir(mode=0o755)
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


def _volume(path: Path) -> Path | None:
    """The mount point of another disk that the path is below; None elsewhere."""
    parts, root = path.parts, VOLUMES.parts
    below = [part.casefold() for part in parts[: len(root)]] == [part.casefold() for part in root]
    return Path(*parts[: len(root) + 1]) if below and len(parts) > len(root) else None


def _mounted(volume: Path) -> bool:
    """Whether a disk is mounted there. macOS has a link to / there for the system disk itself."""
    return volume.is_symlink() or os.path.ismount(volume)


def allowed(test: str, path: Path, owner: Account) -> bool:
    """Whether the account may do it (-r, -w or -x): permissions of every folder above, and access lists, count."""
    if owner.uid == os.geteuid() or os.geteuid() != 0:
        mode = {"-r": os.R_OK, "-x": os.X_OK, "-w": os.W_OK}[test]
        return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
    groups = os.getgrouplist(owner.name, owner.gid)
    done = subprocess.run(
        [shutil.which("test", path="/bin:/usr/bin") or "test", test, str(path)],
        user=owner.uid, group=owner.gid, extra_groups=groups, cwd="/", check=False, timeout=_TEST_TIMEOUT_S,
    )  # fmt: skip
    return done.returncode == 0
