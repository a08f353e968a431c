"""The folders that the settings name, and what is wrong when one cannot be used."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from .checkout import PATCHES
from .config import Config
from .errors import DiskFull, FolderUnusable, ToolchainError

_HINTS = {
    "workspace": "name another folder: --set workspace=DIR, or TURBOQUANT_WORKSPACE",
    "deploy.prefix": "name another folder: --set deploy.prefix=DIR, or TURBOQUANT_DEPLOY_PREFIX",
    "deploy.agents_dir": "name another folder: --set deploy.agents_dir=DIR, or leave it empty",
    "publish.folder": "name another folder: --set publish.folder=DIR",
    "series.path": "use a copy that you can write to: --set series.path=DIR",
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHOWN = 140
_UNUSABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.EIO,
    errno.ESTALE, errno.EISDIR, errno.ENOTEMPTY,
)  # fmt: skip
"""what the system says of a folder that was named or mounted wrongly; anything else may be a bug"""


def workspace(config: Config) -> Path:
    """The workspace, which need not exist yet. Raises `FolderUnusable`."""
    folder = _expanded(config.workspace, "workspace")
    if folder.exists() and not folder.is_dir():
        raise FolderUnusable(f"workspace: {folder} is not a folder", hint=_HINTS["workspace"])
    home = Path(os.environ.get("HOME") or "/")
    if home.is_absolute() and not home.exists() and folder.is_relative_to(home):
        raise FolderUnusable(
            f"workspace: {folder}: the home folder {home} does not exist", hint=f"set HOME, or {_HINTS['workspace']}"
        )
    return folder


def explained(
    error: BaseException | None, config: Config | None, flags: Mapping[str, str] = MappingProxyType({})
) -> ToolchainError | None:
    """The system's refusal of a file in the workspace, the prefix or the series, or above them, as an expected failure.

    `flags` are further places that a task's flags name, by flag. None for anything else: an `OSError` elsewhere may be
    a bug, and keeps its traceback.
    """
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # of Path.expanduser
        if os.environ.get("HOME"):
            return FolderUnusable("a path begins with ~NAME, and there is no user NAME", hint="write it without ~")
        return FolderUnusable(
            f"the home folder is unknown: HOME is not set, and uid {os.geteuid()} is in no user database",
            hint="set HOME, or TURBOQUANT_WORKSPACE and TURBOQUANT_DEPLOY_PREFIX",
        )
    if not isinstance(error, OSError) or error.errno is None:
        return None
    what = f"{error.strerror} ({errno.errorcode.get(error.errno, error.errno)})"
    if error.errno == errno.ENAMETOOLONG:  # whatever it was given for
        return FolderUnusable(f"{str(error.filename)[:_SHOWN]}...: {what}", hint="name a shorter path")
    if config is None:
        return None
    if error.errno in _FULL:
        return DiskFull(f"{error.filename or 'the disk of the workspace'}: {what}", hint="free some space")
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | Path)]
    named = {
        "workspace": config.workspace,
        "deploy.prefix": config.deploy.prefix,
        "deploy.agents_dir": config.deploy.agents_dir,
        "publish.folder": config.publish.folder,
        "series.path": config.series.path or str(PATCHES),
        **flags,
    }
    for key, value in named.items():
        if not value:
            continue
        try:
            folder = _expanded(value, key)
        except FolderUnusable:
            continue
        for path in (Path(name).absolute() for name in names):
            if error.errno in _UNUSABLE and (path.is_relative_to(folder) or folder.is_relative_to(path)):
                return FolderUnusable(f"{key}: {path}: {what}", hint=_hint(key))
    return None


def _expanded(name: str, key: str) -> Path:
    try:
        return Path(name).expanduser().absolute()
    except RuntimeError as error:
        raise FolderUnusable(f"{key}: {name}: the home folder is unknown", hint=f"set HOME, or {_hint(key)}") from error


def _hint(key: str) -> str:
    return _HINTS.get(key, f"name another place: {key}")
