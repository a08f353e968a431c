"""File modes of a release: each file is executable or not, and only its owner can write it, whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

FOLDER = PROGRAM = 0o755
DATA = 0o644
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_LOADABLE = (
    b"#!",
    b"\x7fELF",
    *(magic for one in (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf") for magic in (one, one[::-1])),  # Mach-O
    b"\xca\xfe\xba\xbe",
    b"\xca\xfe\xba\xbf",  # for several processors
)
_APPLE_DOUBLE = b"\x00\x05\x16\x07"


def is_loadable(path: Path) -> bool:
    """Whether a file is a program, a library or a script, by its first bytes."""
    with path.open("rb") as file:
        return file.read(4).startswith(_LOADABLE)


def executable(folder: Path) -> tuple[str, ...]:
    """The files below `folder` that their modes call executable, sorted."""
    return tuple(sorted(name for name, path in _files(folder) if path.stat().st_mode & stat.S_IXUSR))


def presumed_executable(folder: Path) -> tuple[str, ...]:
    """The files below `folder` that look executable, sorted: for a manifest of an earlier version."""
    return tuple(sorted(name for name, path in _files(folder) if name.startswith("bin/") or is_loadable(path)))


def is_finders(path: Path) -> bool:
    """Whether a file is one that macOS leaves where one looks or copies: .DS_Store, .localized, AppleDouble.

    Its content is examined, too: a library of that name could be loaded.
    """
    name = path.name
    if name not in (".DS_Store", ".localized") and not name.startswith("._"):
        return False
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        return False
    if name.startswith("._"):
        with path.open("rb") as file:
            return file.read(4) == _APPLE_DOUBLE
    return not found.st_size if name == ".localized" else not is_loadable(path)


def problems(folder: Path, expected: Iterable[str] | None) -> list[str]:
    """What is wrong with the modes and owners below `folder`, in words. Links have none.

    `expected` are the executable files; None: unknown.
    """
    owners = {folder.stat().st_uid, os.geteuid(), 0}
    known = None if expected is None else set(expected)
    found = []
    for root, folders, files in os.walk(folder):
        for path in (Path(root), *(Path(root) / name for name in files)):
            state = path.lstat()
            name = path.relative_to(folder).as_posix()
            if stat.S_ISLNK(state.st_mode) or is_finders(path):
                continue
            regular = stat.S_ISREG(state.st_mode)
            if regular and state.st_mode & _SPECIAL:
                found.append(f"{name} is setuid, setgid or sticky")
            if state.st_mode & _WRITABLE:
                found.append(f"{name} can be written by others")
            if state.st_uid not in owners:
                found.append(f"{name} belongs to another user (uid {state.st_uid})")
            if known is not None and regular:
                runs = bool(state.st_mode & stat.S_IXUSR)
                if runs and name not in known:
                    found.append(f"{name} is executable, unlike in the manifest")
                elif not runs and name in known:
                    found.append(f"{name} is not executable")
        folders.sort()
    return found


def special(folder: Path) -> list[str]:
    """The files below `folder` that are setuid, setgid or sticky."""
    return [name for name, path in _files(folder) if path.stat().st_mode & _SPECIAL]


def set_all(folder: Path, expected: Iterable[str]) -> None:
    """Give everything below `folder` its mode: folders 0755, the files `expected` 0755, others 0644.

    An installed release's environment, which may hold a key, is shown to nobody further.
    """
    programs = set(expected)
    for root, _, _ in os.walk(folder):
        Path(root).chmod(FOLDER)
    for name, path in _files(folder):
        mode = path.stat().st_mode if name == "environment" else DATA
        path.chmod(PROGRAM if name in programs else mode & DATA)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The regular files below `folder` with their paths in it."""
    for root, _, files in os.walk(folder):
        for path in (Path(root) / name for name in files):
            if stat.S_ISREG(path.lstat().st_mode):
                yield path.relative_to(folder).as_posix(), path
