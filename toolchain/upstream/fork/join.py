"""A fork and its upstream in one place: a scratch repository that borrows the objects of both.

Merges are made here, so their objects are stored and deleted here. Neither repository is written to, except that git
updates the time stamp of an object file that it would have written again.
"""

from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from ...core import folders
from ...core.config import Config
from ...core.console import Console
from ...core.errors import FetchFailed, UnknownRevision
from ...sources import pin, versions
from ...sources.branches import branches
from ...sources.mirror import fetch_objects, is_url, open_mirror
from ...sources.repository import Repository


class Joined:
    """Both repositories, the fork's branches and upstream's newest commit. Use it as a context manager.

    Raises `NotARepository`, `FetchFailed` for a shallow repository, `UnknownRevision` for a fork without a branch.
    """

    def __init__(self, fork: Repository, upstream: Repository, *, mirrored: bool = False) -> None:
        for name, repository in (("fork", fork), ("upstream", upstream)):
            if repository.is_shallow:
                raise FetchFailed(
                    f"{repository.git_dir}: the {name}'s clone is shallow, so ages and conflicts are unknown",
                    hint=f"git --git-dir={repository.git_dir} fetch --unshallow, or name its URL",
                )
        self.fork, self.upstream, self.mirrored = fork, upstream, mirrored
        self.branches = branches(fork)
        if not self.branches:
            raise UnknownRevision(
                f"{fork.git_dir}: the fork has no branch", hint="check --fork; an empty clone needs a git fetch"
            )
        self.default = fork.git("symbolic-ref", "--quiet", "--short", "HEAD", accept=(0, 1)).strip()
        builds = pin.mainline(upstream)
        if not builds:
            raise UnknownRevision(f"{upstream.git_dir}: llama.cpp has no commits", hint="check --llama-cpp")
        self.builds = builds
        self.newest = builds[max(builds)]
        self._folder = tempfile.TemporaryDirectory(prefix="turboquant-fork-")
        self.repository = Repository(Path(self._folder.name), own=True, offline=True)
        try:
            self.repository.git("init", "--quiet", "--bare", self.repository.git_dir)
            self.repository.borrow(upstream, fork)
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.repository.close()
        self._folder.cleanup()

    def chosen(self, names: Sequence[str]) -> dict[str, str]:
        """The tips of these branches, or of all. Raises `UnknownRevision` for a missing one."""
        for name in names:
            if name not in self.branches:
                raise UnknownRevision(
                    f"{self.fork.git_dir}: the fork has no branch {name!r}",
                    hint=f"it has {', '.join(_near(name, self.branches))}; without --branch, all are examined",
                )
        return {name: self.branches[name] for name in names} if names else self.branches

    def build_tags(self) -> dict[str, str]:
        """Commits of the fork's tags that look like build numbers, such as b10488."""
        listed = self.fork.git(
            "for-each-ref", "--format=%(refname:strip=2) %(objectname) %(*objectname)", "refs/tags/b*"
        )
        tags = {name: ids[-1] for name, *ids in map(str.split, listed.splitlines()) if re.fullmatch(r"b\d+", name)}
        gone = set(self.missing(tags.values()))
        return {name: commit for name, commit in sorted(tags.items()) if commit not in gone}

    def untrue_versions(self) -> tuple[str, ...]:
        """Tags of the fork that name a version of upstream, such as v0.3.0, but are on another commit."""
        ours, theirs = versions.releases(self.upstream), versions.releases(self.fork)
        return tuple(
            tag.name for version, tag in theirs.items() if version in ours and ours[version].commit != tag.commit
        )

    def stamp(self) -> str:
        """A value that changes whenever either repository gets objects."""
        return self.fork.git("count-objects", "-v") + self.upstream.git("count-objects", "-v")

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Those of the objects that both repositories lack, as in a partial clone."""
        asked = "".join(f"{one}\n" for one in dict.fromkeys(ids))
        told = self.repository.git("cat-file", "--batch-check=%(objectname)", stdin=asked.encode())
        return [line.split()[0] for line in told.splitlines() if line.endswith(" missing")]

    @property
    def partial(self) -> bool:
        """Whether the fork is a clone without all contents."""
        return self.fork.succeeds("config", "--get-regexp", r"^(remote\..*\.promisor|extensions\.partialclone)$")

    def obtain(self, ids: Iterable[str], console: Console) -> set[str]:
        """Fetch these objects if the fork is our mirror; returns those that are still missing."""
        wanted = self.missing(ids)
        if wanted and self.mirrored and not self.fork.offline:
            fetch_objects(self.fork, wanted, console)
            return set()
        return set(wanted)

    def incomplete(self, what: str) -> FetchFailed:
        """The error for objects that both repositories lack."""
        where = self.fork.git_dir
        return FetchFailed(
            f"{where}: {what} needs contents that are missing, as in a partial clone",
            hint=f"git --git-dir={where} fetch --refetch --no-filter (git 2.36 or newer), or name the fork's URL",
        )


def open_fork(config: Config, upstream: Repository, console: Console) -> Joined:
    """The configured fork, beside its upstream."""
    origin = config.fork.origin
    if not origin:
        raise UnknownRevision("no fork is named", hint="--fork URL-or-path, or fork.origin in turboquant.yaml")
    if is_url(origin):
        workspace = folders.workspace(config)
        fork = open_mirror("fork", origin, workspace, offline=config.sources.offline, console=console)
        return Joined(fork, upstream, mirrored=True)
    return Joined(Repository.open(Path(origin)), upstream)


def _near(name: str, names: Iterable[str]) -> list[str]:
    known = list(names)
    return difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
