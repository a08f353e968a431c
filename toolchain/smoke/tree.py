"""The files that are checked: those that git tracks, or in a source archive all that git would track."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..sources.command import Command
from ..sources.repository import Repository

_LINK, _EXECUTABLE = "120000", "100755"


@dataclass(frozen=True)
class File:
    """A file by its name in the repository, and how git has it."""

    root: Path
    name: str
    is_link: bool
    executable: bool

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.root / self.name

    @cached_property
    def data(self) -> bytes:
        """Its content; of a link, what the link says."""
        return os.fsencode(os.readlink(self.path)) if self.is_link else self.path.read_bytes()

    @cached_property
    def text(self) -> str | None:
        """Its content as text; None when it is binary, a link, or not UTF-8."""
        if self.is_link or b"\0" in self.data:
            return None
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            return None

    @property
    def suffix(self) -> str:
        """As in `.py`; empty for one without."""
        return Path(self.name).suffix

    @cached_property
    def interpreter(self) -> str:
        """The program that its first line names, as in `bash`; empty without such a line."""
        if self.is_link or not self.data.startswith(b"#!"):
            return ""
        words = self.data[2:].split(b"\n", 1)[0].decode(errors="replace").split()
        if words and words[0].endswith("/env"):
            words = [word for word in words[1:] if not word.startswith("-")]
        return words[0].rpartition("/")[2] if words else ""


def files(root: Path) -> list[File]:
    """The files of the repository at `root`, by name. What git tracks, but was deleted, is left out.

    Raises `NotARepository` where there is a `.git` that git refuses, and `MissingTool` without git.
    """
    found = _tracked(root) if (root / ".git").exists() else _all_but_ignored(root)
    return sorted(found, key=lambda file: file.name)


def _tracked(root: Path) -> Iterator[File]:
    repository = Repository(Repository.open(root).git_dir, work_tree=root)
    listed = repository.git("ls_files", "--stage", "-z")
    modes = {}
    for entry in filter(None, listed.split("\0")):
        facts, _, name = entry.partition("\t")
        modes[name] = facts.split()[0]  # of a file in conflict the last of several
    for name, mode in modes.items():
        path = root / name
        if path.is_symlink() or path.is_file():
            yield File(root=root, name=name, is_link=mode == _LINK, executable=mode == _EXECUTABLE)


def _all_but_ignored(root: Path) -> Iterator[File]:
    """As git would see it, were it a repository: so an environment or a cache beside the files is none of them."""
    with tempfile.TemporaryDirectory(prefix="turboquant-check-") as folder:
        Command(Path(folder)).run("init", "--quiet", "--bare", folder)
        git = Command(root, git_dir=folder, work_tree=str(root))
        _, listed, _ = git.run("ls_files", "--others", "--exclude-standard", "-z")
    for name in filter(None, os.fsdecode(listed).split("\0")):
        mode = (root / name).lstat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):  # a repository within is listed as a folder
            yield File(root=root, name=name, is_link=stat.S_ISLNK(mode), executable=bool(mode & stat.S_IXUSR))
