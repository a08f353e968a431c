"""A git directory that stands for another one, which is only read.

git runs what a repository's own configuration names: filters, drivers for diff and merge, a file system monitor, an ssh
command. So a repository that is not ours is read through a folder that has its objects, refs and index by links, and a
configuration of our own. Of the repository's configuration it has what says how the repository is stored, and nothing
else; info/attributes, info/grafts and hooks are left out as well.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from weakref import finalize

from ..core import temporary
from ..core.errors import NotARepository
from ..core.records import read_bytes
from .command import Command

_OF_THE_REPOSITORY = ("objects", "refs", "packed-refs", "reftable", "logs", "shallow")
_OF_THE_WORK_TREE = ("index", "FETCH_HEAD", "ORIG_HEAD")
_TAKEN = re.compile(
    r"(core\.(?:repositoryformatversion|filemode|ignorecase|precomposeunicode|symlinks)"
    r"|extensions\.(?!worktreeconfig$)[a-z]+|remote\.[\w-]+\.promisor)\n([\w.:/-]*)"
)
"""settings, as `git config --null` lists them, that say how a repository is stored"""
_MOST_BYTES = 1 << 16


class View:
    """A stand-in for the git directory `git_dir`, deleted with this object. Raises `NotARepository`."""

    def __init__(self, git_dir: Path) -> None:
        opened = ExitStack()
        self._end = finalize(self, opened.close)
        self.git_dir = opened.enter_context(temporary.folder("git"))
        shared = _common(git_dir)
        try:
            # A copy, because git takes a link for an old kind of symbolic ref.
            head = read_bytes(git_dir / "HEAD", limit=_MOST_BYTES)
        except OSError as error:
            raise NotARepository(f"{git_dir}: not a git repository", hint="was it moved or removed?") from error
        (self.git_dir / "HEAD").write_bytes(head)
        for folder, names in ((shared, _OF_THE_REPOSITORY), (git_dir, _OF_THE_WORK_TREE)):
            for name in names:  # also those that do not exist, or not yet
                (self.git_dir / name).symlink_to(folder / name)
        (self.git_dir / "info").mkdir()
        (self.git_dir / "info" / "exclude").symlink_to(shared / "info" / "exclude")
        for index in shared.glob("sharedindex.*"):
            (self.git_dir / index.name).symlink_to(index)
        (self.git_dir / "config").write_text(_configuration(shared / "config", self.git_dir))

    def close(self) -> None:
        """Delete it."""
        self._end()


def _common(git_dir: Path) -> Path:
    """The git directory whose objects and refs a linked work tree's one uses."""
    try:
        named = read_bytes(git_dir / "commondir", limit=_MOST_BYTES)
    except OSError:
        return git_dir.resolve()
    return (git_dir / named.decode(errors="surrogateescape").rstrip("\n")).resolve()


def _configuration(file: Path, git_dir: Path) -> str:
    """Our own configuration for a repository with this one. Raises `NotARepository` when git cannot read it."""
    listed = b""
    if file.exists():
        git = Command(git_dir, git_dir=str(git_dir))
        status, listed, said = git.run("config", "--file", file, "--no-includes", "--null", "--list")
        if status != 0:
            raise NotARepository(f"{file}: {said.strip()}", hint="git config --list there shows what is wrong")
    lines = ["[core]\n\tbare = true\n"]
    for entry in listed.decode(errors="replace").split("\0"):
        if found := _TAKEN.fullmatch(entry):
            *section, name = found[1].split(".")
            heading = section[0] if len(section) == 1 else f'{section[0]} "{".".join(section[1:])}"'
            lines.append(f"[{heading}]\n\t{name} = {found[2]}\n")
    return "".join(lines)
