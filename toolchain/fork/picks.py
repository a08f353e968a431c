"""Cherry-picks of many commits in memory.

Most need no merge: where every file that a commit changes is on the target as the commit found it, the result is
known. Only the others are given to git.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..sources.repository import Repository
from .content import Edit, difference, edits_of
from .merging import Conflict, Merger

_NONE = "0" * 40


class Picker:
    """Picks `commits`, none of them a merge, onto the commit `onto`: each alone, or one after another."""

    def __init__(self, repository: Repository, merger: Merger, onto: str, commits: Sequence[str]) -> None:
        self._repository, self._merger, self._onto = repository, merger, onto
        self._commits = commits
        self._edits = edits_of(repository, commits)
        asked = "".join(f"{commit}\n" for commit in commits).encode()
        listed = repository.git("rev-list", "--no-walk=unsorted", "--parents", "--stdin", stdin=asked)
        self._parents = {words[0]: words[1] for words in map(str.split, listed.splitlines()) if len(words) > 1}
        self._brought = {edit.path for edits in self._edits.values() for edit in edits if not edit.old.strip("0")}
        self._onto_files = merger.files(onto)
        self._changed: dict[str, tuple[str, str]] = {}
        """mode and blob of every path that the picks so far changed"""

    def alone(self) -> list[bool]:
        """Whether each commit applies to `onto` by itself."""
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(self._applies, self._commits))

    def take(self, commit: str) -> tuple[Conflict, ...]:
        """Pick a commit after those taken before. With conflicts, it is left out."""
        edits = self._edits.get(commit, ())
        if all(self._here(edit.path) in (edit.old, edit.new) for edit in edits):
            self._changed |= {edit.path: (edit.new_mode, edit.new) for edit in edits}
            return ()
        tree = self.tree()
        merge = self._merger.pick(commit, self._parents[commit], tree)
        if merge.clean:
            for path, edit in difference(self._repository, tree, merge.tree).items():
                if path not in merge.left_out:
                    self._changed[path] = (edit.new_mode, edit.new)
        return merge.conflicts

    def tree(self) -> str:
        """The tree of `onto` with the picks taken so far."""
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
            self._repository.git("read-tree", self._onto, env=env)
            lines = [
                f"{mode if blob.strip('0') else 0} {blob}\t{path}\0" for path, (mode, blob) in self._changed.items()
            ]
            entries = "".join(lines).encode(errors="surrogateescape")
            self._repository.git("update-index", "-z", "--index-info", stdin=entries, env=env)
            return self._repository.git("write-tree", "--missing-ok", env=env).strip()

    def _here(self, path: str) -> str:
        if path in self._changed:
            return self._changed[path][1]
        return self._onto_files.get(path, _NONE)

    def _applies(self, commit: str) -> bool:
        edits = self._edits.get(commit, ())
        if all(self._onto_files.get(edit.path, _NONE) in (edit.old, edit.new) for edit in edits):
            return True
        if any(self._builds_on_the_fork(edit) for edit in edits):
            return False
        return self._merger.pick(commit, self._parents[commit], self._onto).clean

    def _builds_on_the_fork(self, edit: Edit) -> bool:
        """Whether a commit changes a file that another one of the fork brought, and so has nothing to change."""
        return edit.old.strip("0") != "" and edit.path not in self._onto_files and edit.path in self._brought
