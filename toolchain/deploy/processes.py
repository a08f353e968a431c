"""The processes of a release: the service's own tree, and what ran out of a release and outlived its stop.

A process tree cannot be followed for certain without the kernel's help: a daemon forks twice and is nobody's child. So
a process counts as one of a release if its environment says so, which the shim sets and children inherit, or if its
program lies in the release and nobody but init looks after it. What a release's process started with an environment of
its own, out of another folder, after it left the tree, is not found; nor, without root, what another account runs.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

from ..core import variables
from ..core.console import Console
from ..core.printable import printable
from .prefix import Prefix

_GRACE_S = 5.0
"""between SIGTERM and SIGKILL"""
_KILL_S = 5.0
_ENDING_S = 0.5
"""for processes that are ending by themselves"""
_POLL_S = 0.02
_INTERPRETER = re.compile(r"(?:ba|da|z|k|c)?sh|python[\d.]*|perl[\d.]*|ruby[\d.]*|node")
_INITS = ("init", "systemd", "launchd")
_DESCRIBED = 5


def tree(pid: int) -> tuple[psutil.Process, ...]:
    """A process and its descendants that are alive; empty when it is gone."""
    try:
        root = psutil.Process(pid) if pid > 0 else None
        found = [root, *root.children(recursive=True)] if root else []
    except psutil.Error:
        return ()
    return tuple(filter(alive, found))


def group(pid: int) -> tuple[psutil.Process, ...]:
    """The members of the session and of the process group that a process leads."""
    return tuple(process for process in _others() if pid > 0 and pid in _leaders(process.pid) and alive(process))


def of_release(*folders: Path) -> tuple[psutil.Process, ...]:
    """The live processes that run out of release directories, as far as this account sees them.

    A person's own `ollama` out of it is none: it has neither the mark nor init as its parent.
    """
    names = spellings(*folders)
    return tuple(process for process in _others() if _belongs(process, names) and alive(process))


def spellings(*folders: Path) -> set[str]:
    """Folders as they are written and as they are when links are followed, for `runs_from`."""
    return {str(path) for folder in folders for path in (folder, folder.resolve())}


def runs_from(process: psutil.Process, folders: set[str]) -> bool:
    """Whether its program, or an interpreter's script, lies in one of the folders. Raises `psutil.Error`."""
    words = process.cmdline()
    programs = [process.exe(), *words[:1]]
    if words and _INTERPRETER.fullmatch(Path(words[0]).name):
        programs += [word for word in words[1:] if not word.startswith("-")][:1]
    return any(program.startswith(f"{folder}/") for program in programs for folder in folders)


def is_foreign(process: psutil.Process, folder: Path) -> bool:
    """Whether it runs a program that is not of the release in `folder`; False if it is gone or does not show it."""
    try:
        return not runs_from(process, spellings(folder)) and alive(process)
    except (psutil.Error, OSError):
        return False


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False


def gone(processes: Iterable[psutil.Process], seconds: float) -> tuple[psutil.Process, ...]:
    """Wait until they have ended; returns those that still run after so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := tuple(filter(alive, processes))) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        processes = left
    return left


def end(processes: Iterable[psutil.Process]) -> tuple[psutil.Process, ...]:
    """SIGTERM, then SIGKILL; takes ten seconds at most. Returns those that were running."""
    running = tuple(filter(alive, processes))
    for process in running:
        _signal(process.terminate)
    left = gone(running, _GRACE_S)
    for process in left:
        _signal(process.kill)
    gone(left, _KILL_S)
    return running


def end_of(prefix: Prefix, console: Console, *, spare: Callable[[], int]) -> None:
    """End what still runs out of a release, after the service was stopped, with a warning that names it.

    `spare` gives the pid of the service's present process: it and its descendants stay.
    """
    folders = [path for path in prefix.releases.iterdir() if path.is_dir()] if prefix.releases.is_dir() else []
    found = of_release(*folders)
    kept = set(tree(spare())) if found else set()  # asked afterwards: the manager may have started it meanwhile
    # Children of a service that was just stopped are about to end.
    found = gone(tuple(one for one in found if one not in kept), _ENDING_S)
    if found:
        console.warn(f"ended what ran out of a release and is not the service: {listed(found)}")
    end(found)


def describe(process: psutil.Process) -> str:
    """As in pid 4711 (ollama runner)."""
    try:
        words = process.cmdline() or [process.name()]
    except psutil.Error:
        words = ["unknown program"]
    return f"pid {process.pid} ({printable(' '.join([Path(words[0]).name, *words[1:]]), 80)})"


def listed(processes: Iterable[psutil.Process]) -> str:
    """The first of them, for a message; empty if there are none."""
    found = sorted(processes, key=lambda process: process.pid)
    more = len(found) - _DESCRIBED
    return ", ".join(map(describe, found[:_DESCRIBED])) + (f" and {more} more" if more > 0 else "")


def open_files(processes: Iterable[psutil.Process]) -> int:
    """How many file descriptors they hold, without network connections, which belong to clients; -1: cannot be seen."""
    try:
        return sum(process.num_fds() - len(process.net_connections(kind="all")) for process in processes)
    except (psutil.Error, OSError):
        return -1


def _others() -> Iterator[psutil.Process]:
    own = os.getpid()
    return (process for process in psutil.process_iter() if process.pid != own)


def _leaders(pid: int) -> tuple[int, ...]:
    try:
        return os.getsid(pid), os.getpgid(pid)
    except OSError:
        return ()


def _belongs(process: psutil.Process, folders: set[str]) -> bool:
    try:
        with process.oneshot():
            if _mark(process) in folders:
                return True
            return _is_orphan(process) and runs_from(process, folders) and process.terminal() is None
    except psutil.Error:
        return False


def _mark(process: psutil.Process) -> str:
    try:
        return process.environ().get(variables.MARK, "")
    except (psutil.Error, OSError):  # OSError: a process of macOS itself
        return ""


def _is_orphan(process: psutil.Process) -> bool:
    parent = process.ppid()
    return parent <= 1 or psutil.Process(parent).name() in _INITS


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.Error):
        send()
