"""Reading git repositories, and nothing else: plumbing commands and one persistent reader of blobs.

Whatever the operator has configured (hooks, line endings, colours, signing) has no influence here, and nor
has a GIT_DIR that a hook left in the environment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from ..core.errors import (
    CommandFailed,
    DiskFull,
    FetchFailed,
    MissingTool,
    NotARepository,
    ToolchainError,
    UnknownRevision,
)
from ..core.records import record

NEUTRAL = (
    *("-c", "core.autocrlf=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.quotePath=false"),
    *("-c", "advice.detachedHead=false"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
)
_INHERITED = (
    "GIT_SSH",
    "GIT_SSL_",
    "GIT_ASKPASS",
    "GIT_PROXY",
    "GIT_CONFIG_",
    "GIT_HTTP",
    "GIT_TRACE",
    "GIT_EXEC_PATH",
)


_SAID_LINES = 12


@record
class Commit:
    """A commit as a report names it."""

    id: str
    date: str
    """committer date, ISO 8601"""
    subject: str


def environment(*, offline: bool, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of a git process: no repository state from outside, no prompts, plain English."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(_INHERITED)
    }
    kept |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    if offline:
        # Partial clones fetch missing objects on their own; older gits know only the second way to forbid it.
        kept |= {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
    return kept | dict(extra or {})


def out_of_space(said: str, where: Path) -> bool:
    """Whether git's words, about a folder, mean that the disk is full. A checkout does not say why it cannot write."""
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return True
    return "unable to write" in said and shutil.disk_usage(where).free < 1 << 20


class Repository:
    """A git repository by its git directory. Objects are read; work trees and refs are left alone.

    `offline` forbids a partial clone to fetch what it lacks.
    """

    def __init__(self, git_dir: Path, *, offline: bool = False) -> None:
        self.git_dir = git_dir
        self.offline = offline
        self._reader: subprocess.Popen[bytes] | None = None

    @classmethod
    def open(cls, path: Path, *, offline: bool = False) -> Self:
        """The repository at `path`: a bare one, or the root of a work tree. Raises `NotARepository`."""
        path = path.expanduser().absolute()
        if not path.is_dir():
            raise NotARepository(f"{path}: no such directory", hint="name a git work tree or a bare repository")
        # The ceiling keeps git from finding a repository that merely surrounds the path.
        env = environment(offline=offline, extra={"GIT_CEILING_DIRECTORIES": str(path.resolve().parent)})
        done = _git(["-C", str(path), "rev-parse", "--absolute-git-dir"], env)
        if done.returncode != 0:
            why = done.stderr.decode(errors="replace").strip().removeprefix("fatal: ").splitlines()
            raise NotARepository(
                f"{path}: not a git repository ({why[0] if why else 'git cannot tell why'})",
                hint="name the root of a git work tree or a bare repository; a source archive has no history",
            )
        return cls(Path(os.fsdecode(done.stdout.rstrip(b"\n"))), offline=offline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the blob reader; the next `read_blob` starts another."""
        if self._reader is not None:
            _end(self._reader)
            self._reader = None

    def git(
        self,
        *args: str | Path,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        accept: tuple[int, ...] = (0,),
        failure: type[ToolchainError] = CommandFailed,
        hint: str = "",
    ) -> str:
        """What `git ARGS` prints on stdout, as it is. Raises `failure` with git's own words on any end but `accept`."""
        done = self._run(args, env, stdin)
        if done.returncode not in accept:
            said = done.stderr.decode(errors="replace").strip() or f"ended with {done.returncode}"
            if out_of_space(said, self.git_dir):
                raise DiskFull(f"{self.git_dir}: the disk is full", hint="free some space, then run it again")
            said = "\n  ".join(said.splitlines()[-_SAID_LINES:])
            raise failure(f"git {' '.join(map(str, args))}\n  in: {self.git_dir}\n  {said}", hint=hint)
        return done.stdout.decode(errors="surrogateescape")

    def succeeds(self, *args: str | Path, env: Mapping[str, str] | None = None) -> bool:
        """Whether `git ARGS` ends with 0."""
        return self._run(args, env).returncode == 0

    def _run(
        self, args: tuple[str | Path, ...], env: Mapping[str, str] | None, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        words = [f"--git-dir={self.git_dir}", *map(str, args)]
        return _git(words, environment(offline=self.offline, extra=env), stdin or b"")

    def resolve(self, revision: str) -> str:
        """The full commit id of a branch, tag, remote branch or commit. Raises `UnknownRevision`."""
        for name in (revision, f"refs/remotes/origin/{revision}"):
            done = self._run(("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"), None)
            if done.returncode == 0:
                return done.stdout.decode().strip()
        raise UnknownRevision(
            f"{self.git_dir}: no branch, tag or commit {revision!r}",
            hint="git tag / git branch -a list what there is; a mirror may need an update",
        )

    def read_blob(self, commit: str, path: str) -> bytes | None:
        """Content of the file `path` at `commit`; None where the tree has no such file.

        Raises `FetchFailed` when the tree names the file but its content is unavailable.
        """
        # cat-file reads names line by line, and takes a carriage return before the end for part of it
        single = "\n" in path or path.endswith("\r")
        found = self._ask_alone(f"{commit}:{path}") if single else self._ask(f"{commit}:{path}")
        if found is not None:
            kind, data = found
            return data if kind == "blob" else None
        if not self.exists(commit, path):
            return None
        raise FetchFailed(
            f"{path} at {commit[:12]}: its content is not in {self.git_dir}",
            hint="the repository is partial or damaged: fetch it again, online",
        )

    def _ask(self, name: str) -> tuple[str, bytes] | None:
        for _ in range(2):
            reader = self._reader or self._start_reader()
            assert reader.stdin is not None
            assert reader.stdout is not None
            try:
                reader.stdin.write(os.fsencode(name) + b"\n")
                reader.stdin.flush()
                header = reader.stdout.readline()
            except BrokenPipeError:
                header = b""
            if header:
                break
            self.close()  # git died, as it does when it cannot fetch an object of a partial clone
        else:
            return None
        words = header.split()
        if header.endswith((b" missing\n", b" ambiguous\n")) or len(words) != 3:
            return None
        size = int(words[2])
        data = reader.stdout.read(size + 1)
        return words[1].decode(), data[:size]

    def _ask_alone(self, name: str) -> tuple[str, bytes] | None:
        kind = self._run(("cat-file", "-t", name), None)
        if kind.returncode:
            return None
        found = kind.stdout.decode().strip()
        return found, self._run(("cat-file", found, name), None).stdout

    def _start_reader(self) -> subprocess.Popen[bytes]:
        argv = ["git", *NEUTRAL, f"--git-dir={self.git_dir}", "cat-file", "--batch"]
        try:
            reader = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(offline=self.offline),
            )
        except FileNotFoundError as error:
            raise _no_git() from error
        self._reader = reader
        weakref.finalize(self, _end, reader)
        return reader

    def exists(self, commit: str, path: str) -> bool:
        """Whether the tree of `commit` has a file or folder `path`."""
        return bool(self._run(("ls-tree", "-z", "--name-only", "--full-tree", commit, "--", path), None).stdout)

    def paths(self, commit: str, under: str = "") -> list[str]:
        """All files of the tree at `commit`, or those below the folder `under`, sorted as git sorts them."""
        where = ["--", f"{under.rstrip('/')}/"] if under else []
        found = self.git("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit, *where, failure=UnknownRevision)
        return found.split("\0")[:-1]

    def grep(self, commit: str, texts: Sequence[str], under: Sequence[str], *options: str) -> list[str]:
        """What `git grep OPTIONS` lists below the folders `under` for any of the texts, letter for letter.

        Raises `FetchFailed` when the contents of some files are unavailable.
        """
        words = [word for text in texts for word in ("-e", text)]
        done = self._run(("grep", "-z", "-I", "-F", *options, *words, commit, "--", *under), None)
        if done.returncode not in (0, 1):
            said = done.stderr.decode(errors="replace").strip()
            raise FetchFailed(
                f"{self.git_dir} at {commit[:12]}: some files cannot be read: {said}",
                hint="the repository is partial or damaged: fetch it again, online",
            )
        return os.fsdecode(done.stdout).replace("\n", "\0").split("\0")[:-1]

    def describe(self, commit: str) -> str:
        """Newest tag before the commit and the distance (`git describe --tags`), or the short commit id."""
        return self.git("describe", "--tags", "--always", commit, failure=UnknownRevision).strip()

    def count(self, revision: str) -> int:
        """Number of commits in the history of a commit, or in a range."""
        return int(self.git("rev-list", "--count", revision, failure=UnknownRevision))

    def merge_base(self, one: str, other: str) -> str | None:
        """The best common ancestor; None for unrelated histories."""
        return self._run(("merge-base", one, other), None).stdout.decode().strip() or None

    def commit(self, revision: str) -> Commit:
        """Id, date and subject of a commit."""
        found = self._log("-1", revision)
        if found is None:
            raise UnknownRevision(f"{self.git_dir}: no commit {revision!r}")
        return found

    def last_commit_touching(self, revisions: str, path: str, *, containing: str = "") -> Commit | None:
        """Newest commit of a range (or history) that changed `path`.

        With `containing`, the newest one that changed how often this text occurs in the file.
        """
        pickaxe = [f"-S{containing}"] if containing else []
        return self._log("-1", *pickaxe, revisions, "--", path)

    def _log(self, *args: str) -> Commit | None:
        line = self.git("log", "--no-show-signature", "--format=%H%x00%cI%x00%s", *args, failure=UnknownRevision)
        if not line.strip():
            return None
        commit, date, subject = line.rstrip("\n").split("\0", 2)
        return Commit(id=commit, date=date, subject=subject)

    @property
    def is_shallow(self) -> bool:
        """Whether history is cut off, so that counts mean nothing."""
        return self.git("rev-parse", "--is-shallow-repository").strip() == "true"


def _git(words: list[str], env: Mapping[str, str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *NEUTRAL, *words], env=env, input=stdin, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise _no_git() from error


def _no_git() -> MissingTool:
    return MissingTool("git: no such program", hint="install git (macOS: xcode-select --install)")


def _end(reader: subprocess.Popen[bytes]) -> None:
    for stream in (reader.stdin, reader.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    reader.wait()
