"""git repositories, read through GitPython: commands, one persistent reader of objects, trees and commits."""

from __future__ import annotations

import os
import re
import shutil
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import dropwhile, takewhile
from operator import not_
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

from git import GitCmdObjectDB, GitConfigParser, InvalidGitRepositoryError, NoSuchPathError, RemoteProgress, Repo, Tree
from git.cmd import handle_process_output
from git.objects import IndexObject

from ..core.errors import CommandFailed, DiskFull, FetchFailed, NotARepository, ToolchainError, UnknownRevision
from ..core.process import kill_group
from ..core.records import record
from .command import Command
from .view import View

_Answer = TypeVar("_Answer")
_TRUST = re.compile(r"git config --global --add safe\.directory .+")
_SAFETY = re.compile(r"\bsafe\.(?!directory)\w+", re.IGNORECASE)
_SAID_LINES = 12


@record
class Commit:
    """A commit as reports show it."""

    id: str
    date: str
    """committer date, ISO 8601"""
    subject: str


def out_of_space(said: str, where: Path) -> bool:
    """Whether git's message about a folder means that the disk is full. A checkout does not say why a write failed."""
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return True
    return "unable to write" in said and shutil.disk_usage(where).free < 1 << 20


class _Repo(Repo):
    """GitPython's repository. Only git reads the configuration: GitPython fails on one that is not UTF-8."""

    def _config_reader(self, *_: Any) -> GitConfigParser:
        return GitConfigParser(os.devnull, read_only=True)


class Repository:
    """A git repository by its git directory, which is only read; the configuration in it has no influence.

    One that is `own` may be written to, and its configuration counts. `offline` keeps a partial clone from fetching
    missing objects, as only an own one can. With `work_tree`, commands work on the files there.
    """

    def __init__(
        self, git_dir: Path, *, own: bool = False, offline: bool = False, work_tree: Path | None = None
    ) -> None:
        self.git_dir = git_dir
        self.offline = offline or not own
        self._own, self._work_tree = own, work_tree

    @cached_property
    def _git(self) -> Command:
        # Without a work tree, commands run in the git directory, where no .gitattributes file applies.
        view = None if self._own else View(self.git_dir)
        git_dir = view.git_dir if view else self.git_dir
        options = {"work_tree": str(self._work_tree)} if self._work_tree else {}
        configured = self._own and not self.offline  # to fetch
        found = Command(
            self._work_tree or git_dir, offline=self.offline, configured=configured, git_dir=str(git_dir), **options
        )
        self._finalizer = weakref.finalize(self, _end, found, view)
        return found

    @classmethod
    def open(cls, path: Path) -> Self:
        """The repository at `path`: a bare one, or the root of a work tree. Raises `NotARepository`."""
        path = path.expanduser().absolute()
        if not path.is_dir():
            raise NotARepository(f"{path}: no such directory", hint="name a git work tree or a bare repository")
        # git itself looks, since it also checks the folder's owner. The ceiling keeps it from finding an enclosing
        # repository.
        env = {"GIT_CEILING_DIRECTORIES": str(path.resolve().parent)}
        status, found, said = Command(path, configured=True).run("rev-parse", "--absolute-git-dir", env=env)
        if status != 0:
            why = said.strip().removeprefix("fatal: ").splitlines()
            what = "git does not open this repository" if _trust(said) else "not a git repository"
            raise NotARepository(
                f"{path}: {what} ({why[0] if why else 'no reason given'})",
                hint=_trust(said)
                or "name the root of a git work tree or a bare repository; a source archive has no history",
            )
        return cls(Path(os.fsdecode(found.rstrip(b"\n"))))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that read objects; the next read starts new ones."""
        if self.__dict__.pop("_git", None):
            self.__dict__.pop("_repo", None)
            self._finalizer()

    @cached_property
    def _repo(self) -> Repo:
        git = self._git  # before GitPython reads the environment, from which it drops variables
        try:
            repo = _Repo(self.git_dir, expand_vars=False)
        except (InvalidGitRepositoryError, NoSuchPathError) as error:
            raise NotARepository(f"{self.git_dir}: not a git repository", hint="was it moved or removed?") from error
        repo.git = git
        repo.odb = GitCmdObjectDB(repo.odb.root_path(), git)
        return repo

    @property
    def version(self) -> tuple[int, ...]:
        """git's own version, as in (2, 39, 5)."""
        return self._git.version_info

    @property
    def objects(self) -> Path:
        """The folder of the objects; git follows alternates from there."""
        return Path(self._repo.odb.root_path()).resolve()

    def borrow(self, *lenders: Repository) -> None:
        """Read the objects of these repositories as well. Replaces earlier lenders."""
        self._repo.alternates = [str(path) for path in dict.fromkeys(lender.objects for lender in lenders)]

    def git(
        self,
        command: str,
        *args: str | Path,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        accept: tuple[int, ...] = (0,),
        failure: type[ToolchainError] = CommandFailed,
        hint: str = "",
    ) -> str:
        """The stdout of `git COMMAND`. Raises `failure` with git's message on an exit status not in `accept`."""
        status, out, said = self._git.run(command, *args, env=env, stdin=stdin)
        if status not in accept:
            said = "\n  ".join((said.strip() or f"ended with {status}").splitlines()[-_SAID_LINES:])
            self.refuse(f"git {' '.join(map(str, (command, *args)))}\n  in: {self.git_dir}\n  {said}", failure, hint)
        return os.fsdecode(out)

    def succeeds(self, command: str, *args: str | Path, env: Mapping[str, str] | None = None) -> bool:
        """Whether `git COMMAND` ends with 0."""
        return bool(self._git.run(command, *args, env=env)[0] == 0)

    def fetch(self, *args: str, progress: RemoteProgress) -> int:
        """Exit status of `git fetch`, whose output goes to `progress`."""
        words = ("--progress", *args)
        process = self._git.fetch(*words, as_process=True, with_stdout=False, universal_newlines=True)
        try:
            handle_process_output(process, None, progress.new_message_handler(), decode_streams=False)
            return int(process.proc.wait())
        except BaseException:
            kill_group(process.proc.pid)  # before the caller releases its lock
            process.proc.wait()
            raise

    def refuse(self, said: str, failure: type[ToolchainError], hint: str) -> NoReturn:
        """Raise `failure` with git's message, or `DiskFull`; adds a hint for a repository that another user owns."""
        if out_of_space(said, self.git_dir):
            raise DiskFull(f"{self.git_dir}: the disk is full", hint="free some space, then try again")
        raise failure(said, hint=_trust(said) or hint)

    def resolve(self, revision: str) -> str:
        """The full commit id of a branch, tag, remote branch or commit. Raises `UnknownRevision`."""
        for name in (revision, f"refs/remotes/origin/{revision}"):
            if found := self._ask(self._git.get_object_header, f"{name}^{{commit}}"):
                return os.fsdecode(found[0])
        raise UnknownRevision(
            f"{self.git_dir}: no branch, tag or commit {revision!r}",
            hint="git tag and git branch -a list them; a mirror may need an update",
        )

    def read_blob(self, commit: str, path: str) -> bytes | None:
        """Content of the file `path` at `commit`; None where the tree has no such file.

        Raises `FetchFailed` when the tree names the file but its content is unavailable.
        """
        name = f"{commit}:{path}"
        if not path.isprintable():  # git's reader takes one name per line, and GitPython writes UTF-8 only
            entry = self._entry(commit, path)
            name = entry.hexsha if entry else ""
        if name and (found := self._ask(self._git.get_object_data, name)):
            _, kind, _, data = found
            return data if os.fsdecode(kind) == "blob" else None
        if not self.exists(commit, path):
            return None
        raise FetchFailed(
            f"{path} at {commit[:12]}: its content is not in {self.git_dir}",
            hint="the repository is partial or damaged: fetch it again, online",
        )

    def exists(self, commit: str, path: str) -> bool:
        """Whether the tree of `commit` has a file or folder `path`."""
        return self._entry(commit, path) is not None

    def _entry(self, commit: str, path: str) -> IndexObject | None:
        def find() -> IndexObject:
            tree, _, _ = self._git.get_object_header(f"{commit}^{{tree}}")
            return Tree(self._repo, bytes.fromhex(os.fsdecode(tree)), path="") / path

        return self._ask(find)

    def _ask(self, ask: Callable[..., _Answer], *args: str) -> _Answer | None:
        """An answer of git's persistent readers, or None. Dead readers are restarted: they die on an object that a
        partial clone cannot fetch."""
        for _ in range(2):
            try:
                return ask(*args)
            except BrokenPipeError:
                self._git.clear_cache()
            except (KeyError, ValueError):
                return None
        return None

    def paths(self, commit: str, under: str = "") -> list[str]:
        """All files of the tree at `commit`, or those below the folder `under`, in git's order."""
        where = ["--", f"{under.rstrip('/')}/"] if under else []
        found = self.git("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit, *where, failure=UnknownRevision)
        return found.split("\0")[:-1]

    def grep(self, commit: str, texts: Sequence[str], under: Sequence[str], *options: str) -> list[str]:
        """What `git grep OPTIONS` lists below the folders `under` for any of the texts, as fixed strings.

        Raises `FetchFailed` when the contents of some files are unavailable.
        """
        words = [word for text in texts for word in ("-e", text)]
        found = self.git(
            *("grep", "-z", "-I", "-F", *options, *words, commit, "--", *under),
            accept=(0, 1),
            failure=FetchFailed,
            hint="the repository is partial or damaged: fetch it again, online",
        )
        return found.replace("\n", "\0").split("\0")[:-1]

    def describe(self, commit: str) -> str:
        """Newest tag before the commit and the distance (`git describe --tags`), or the short commit id."""
        return self.git("describe", "--tags", "--always", commit, failure=UnknownRevision).strip()

    def count(self, revision: str) -> int:
        """Number of commits in the history of a commit, or in a range."""
        return int(self.git("rev-list", "--count", revision, failure=UnknownRevision))

    def merge_base(self, one: str, other: str) -> str | None:
        """The best common ancestor; None for unrelated histories."""
        _, found, _ = self._git.run("merge-base", one, other)
        return found.decode().strip() or None

    def commit(self, revision: str) -> Commit:
        """Id, date and subject of a commit. Raises `UnknownRevision`."""
        found = self._repo.commit(self.resolve(revision))
        lines = (line.rstrip() for line in str(found.message).split("\n"))
        subject = " ".join(takewhile(bool, dropwhile(not_, lines)))  # the first paragraph, as git's own %s
        return Commit(id=found.hexsha, date=found.committed_datetime.isoformat(), subject=subject)

    @property
    def is_shallow(self) -> bool:
        """Whether history is cut off, so that commit counts are wrong."""
        return self.git("rev-parse", "--is-shallow-repository").strip() == "true"


def _trust(said: str) -> str:
    """A hint when git refuses a repository because of its owner, or of a setting for its safety; else empty."""
    if command := _TRUST.search(said):
        return f"another user owns it (git's safe.directory); if you trust it: {command[0]}"
    setting = _SAFETY.search(said)
    return f"git's setting {setting[0]} forbids it: change that, or name a work tree" if setting else ""


def _end(git: Command, view: View | None) -> None:
    git.clear_cache()
    if view:
        view.close()
