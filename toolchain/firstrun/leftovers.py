"""What an operation on an installation left behind that it should not have."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from ..deploy.prefix import Prefix
from ..stages import Deployment

SETTLED_S = 15.0
"""what was stopped may still be ending"""
_POLL_S = 0.1
_TEMPORARY = (".new", ".aside", ".damaged", ".rotating")
_EMULATOR = "toolchain.service.emulator"


def of_deploy(prefix: Prefix, state: Deployment) -> list[str]:
    """Files and processes that belong to no installed release, once what is ending has ended."""
    deadline = time.monotonic() + SETTLED_S
    while (found := [*_files(prefix, state), *_processes(prefix, state.pid)]) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return found


def of_uninstall(prefix: Prefix, definition: Path) -> list[str]:
    """What an uninstall leaves besides the logs."""
    gone = (definition, prefix.current, prefix.state, prefix.journal, prefix.before, prefix.shim)
    deadline = time.monotonic() + SETTLED_S

    def look() -> list[str]:
        found = [f"{path} is left" for path in gone if os.path.lexists(path)]
        if prefix.releases.is_dir():
            found += [f"{path} is left" for path in prefix.releases.iterdir()]
        return [*found, *_processes(prefix, 0)]

    while (found := look()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return found


def _files(prefix: Prefix, state: Deployment) -> Iterator[str]:
    for path in (prefix.journal, prefix.before, prefix.folder / "lock.owner"):
        if os.path.lexists(path):
            yield f"{path} is left"
    for folder in (prefix.folder, prefix.releases, prefix.run, prefix.shim.parent, prefix.logs, prefix.temporary):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.startswith(".") or path.name.endswith(_TEMPORARY) or folder == prefix.temporary:
                yield f"{path} is left"
    there = {path.name for path in prefix.releases.iterdir()} if prefix.releases.is_dir() else set()
    if there != set(state.releases):
        yield f"{prefix.releases} has {_listed(there)}, known are {_listed(set(state.releases))}"


def _processes(prefix: Prefix, service: int) -> Iterator[str]:
    """Processes with a path of the prefix in their command line, outside of the service's own process group."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    group = _group(service)
    folder = f"{prefix.folder}/"
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = one.cmdline()
            if one.pid in own or not any(folder in word for word in words) or one.status() == psutil.STATUS_ZOMBIE:
                continue
            if any(_EMULATOR in word for word in words) or (group and _group(one.pid) == group):
                continue
            if service and service in (parent.pid for parent in one.parents()):
                continue
            yield f"process {one.pid} is left: {' '.join(words)[:200]}"


def _group(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return os.getpgid(pid) if pid else 0
    return 0


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
