"""Cherry-picks of many commits in memory.

Most need no merge: if every file that a commit changes is the same on the target as before the commit, the result is
known. For others git merges only the files concerned, in trees made for it. Whole trees are merged only if files were
added, deleted or changed their mode, since only then renames can matter.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ...sources.repository import Repository
from .areas import area_of
from .content import FileEdit, difference, edits_of
from .merging import Conflict, Merge, Merger

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
        self._brought = {edit.path for edits in self._edits.values() for edit in edits if edit.old == _NONE}
        self._files = merger.files(onto)
        """blob of every path on the target, with the picks so far"""
        self._missing = merger.missing(
            {blob for edits in self._edits.values() for edit in edits for blob in edit.blobs}
            | set(self._files.values())
        )
        self._changed: dict[str, tuple[str, str]] = {}
        """mode and blob of every path that the picks so far changed"""

    def alone(self) -> list[bool]:
        """Whether each commit applies to `onto` by itself. Call it before any `take`."""
        small = {commit: self._in_question(commit) for commit in self._commits}
        todo = {commit: edits for commit, edits in small.items() if not any(map(self._orphaned, edits))}
        prepared = self._prepared({commit: edits for commit, edits in todo.items() if edits and self._simple(edits)})

        def applies(commit: str) -> bool:
            if not small[commit]:
                return True
            if commit in prepared:
                return self._merger.merge(*prepared[commit]).clean
            return commit in todo and self._merger.pick(commit, self._parents[commit], self._onto).clean

        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(applies, self._commits))

    def take(self, commit: str) -> tuple[Conflict, ...]:
        """Pick a commit after those taken before. A commit with conflicts is left out."""
        question = self._in_question(commit)
        orphans = [edit for edit in question if self._orphaned(edit)]
        others = [edit for edit in question if not self._orphaned(edit)]
        if not self._simple(others):
            tree = self.tree()
            merge = self._merger.pick(commit, self._parents[commit], tree)
            if merge.clean:
                changed = difference(self._repository, tree, merge.tree).values()
                self._put(edit for edit in changed if edit.path not in merge.left_out)
            return merge.conflicts
        found = [Conflict(path=e.path, area=area_of(e.path), kind="modify/delete", hunks=1) for e in orphans]
        merged: dict[str, str] = {}
        if others:
            merge = self._merger.merge(*self._prepared({commit: others})[commit])
            found += [_named(conflict, others) for conflict in merge.conflicts]
            if not found:
                merged = {edit.path: blob for edit, blob in zip(others, self._blobs(merge, len(others)), strict=True)}
        if not found:
            self._put(replace(edit, new=merged.get(edit.path, edit.new)) for edit in self._edits.get(commit, ()))
        return tuple(found)

    def tree(self) -> str:
        """The tree of `onto` with the picks taken so far."""
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
            self._repository.git("read-tree", self._onto, env=env)
            rows = ((mode if blob != _NONE else "0", blob, path) for path, (mode, blob) in self._changed.items())
            entries = "".join(f"{mode} {blob}\t{path}\0" for mode, blob, path in rows)
            stdin = entries.encode(errors="surrogateescape")
            self._repository.git("update-index", "-z", "--index-info", stdin=stdin, env=env)
            return self._repository.git("write-tree", "--missing-ok", env=env).strip()

    def _put(self, edits: Iterable[FileEdit]) -> None:
        for edit in edits:
            self._changed[edit.path] = (edit.new_mode, edit.new)
            self._files[edit.path] = edit.new

    def _here(self, path: str) -> str:
        return self._files.get(path, _NONE)

    def _in_question(self, commit: str) -> list[FileEdit]:
        """Edits of files that are neither as before the commit nor as after it.

        Includes a missing file that the commit deletes: git may treat it as renamed.
        """
        return [
            edit
            for edit in self._edits.get(commit, ())
            if (here := self._here(edit.path)) not in (edit.old, edit.new) or here == edit.new == _NONE != edit.old
        ]

    def _orphaned(self, edit: FileEdit) -> bool:
        """Whether only the fork has the file, from a commit that was not picked, so that there is nothing to edit.

        git would look for a file of the target that it might have been renamed to; that is not done here.
        """
        return self._here(edit.path) == _NONE not in (edit.old, edit.new) and edit.path in self._brought

    def _simple(self, edits: Sequence[FileEdit]) -> bool:
        """Whether the files exist before, after and here, as the same kind of file, and can be read."""
        return all(
            edit.old_mode == edit.new_mode and not {_NONE, *self._missing} & {edit.old, edit.new, self._here(edit.path)}
            for edit in edits
        )

    def _prepared(self, picks: Mapping[str, Sequence[FileEdit]]) -> dict[str, tuple[str, str]]:
        """For each commit two commits to merge: the files in question as they are here, and as the commit leaves them.

        Their parent has the files as the commit found them. A file's name is its place among the edits.
        """
        stream: list[str] = []
        for number, edits in enumerate(picks.values()):
            for side, blobs in enumerate(
                ([e.old for e in edits], [self._here(e.path) for e in edits], [e.new for e in edits])
            ):
                stream.append(f"commit refs/dry/{number}/{side}\nmark :{3 * number + side + 1}\n")
                stream.append("committer dry run <dry-run@turboquant.invalid> 1000000000 +0000\ndata 0\n")
                stream.append(f"from :{3 * number + 1}\n" if side else "deleteall\n")
                stream += [f"M 100644 {blob} {place}\n" for place, blob in enumerate(blobs)]
        if not stream:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            marks = Path(folder, "marks")
            stdin = "".join(stream).encode()
            self._repository.git("fast-import", "--quiet", "--force", f"--export-marks={marks}", stdin=stdin)
            ids = dict(line.split() for line in marks.read_text().splitlines())
        return {commit: (ids[f":{3 * number + 2}"], ids[f":{3 * number + 3}"]) for number, commit in enumerate(picks)}

    def _blobs(self, merge: Merge, count: int) -> list[str]:
        files = self._merger.files(merge.tree)
        return [files[str(place)] for place in range(count)]


def _named(conflict: Conflict, edits: Sequence[FileEdit]) -> Conflict:
    path = edits[int(conflict.path)].path
    return replace(conflict, path=path, area=area_of(path))
