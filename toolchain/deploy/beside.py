"""Files beside the releases that environments name: presets of llama-server, and calibrations of keys.

Each file, or the folder of several, is named by its digest and never changes, so that a rollback, or the restore of an
environment, needs nothing else.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..core import records
from . import environment, store
from .prefix import Prefix


def write(files: Mapping[Path, bytes]) -> None:
    """Write what an environment is about to name. The service's user reads it, and there are no secrets in it."""
    for path, data in files.items():
        if path.is_dir() and not path.is_symlink():
            store.set_aside(path)
        records.write_bytes(path, data)


def are_there(files: Mapping[Path, bytes]) -> bool:
    """Whether all of them are, with their contents."""
    try:
        return all(path.is_file() and path.read_bytes() == data for path, data in files.items())
    except OSError:
        return False


def sweep(prefix: Prefix) -> None:
    """Delete what no environment names, of an installed release or of a restore point."""
    texts = [prefix.before / environment.FILE_NAME]
    texts += [release / environment.FILE_NAME for release in prefix.releases.glob("*/")]
    named = b"\n".join(path.read_bytes() for path in texts if path.is_file())
    for folder in prefix.beside:
        if not folder.is_dir() or folder.is_symlink():
            continue
        for path in folder.iterdir():
            if path.name.encode() in named:
                continue
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            elif folder == prefix.calibrations:
                shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # there are some
            folder.rmdir()
