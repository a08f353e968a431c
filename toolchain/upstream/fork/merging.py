"""Merges and cherry-picks in memory, with `git merge-tree --write-tree`. Nothing but a scratch object store changes.

git has `--merge-base` only since 2.40. Here the base is chosen by commits made for the purpose: two children of a
commit have it as merge base, whatever their trees contain.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ...core.errors import CommandFailed, FetchFailed, MissingTool, ToolchainError
from ...core.records import record
from ...sources.repository import Repository
from .areas import DATA, area_of
from .content import files_of

_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "dry run"), ("EMAIL", "dry-run@turboquant.invalid"), ("DATE", "1000000000 +0000"))
}
_CONFLICT = re.compile(r"CONFLICT \(([^)]*)\)")
_HUNK = re.compile(rb"^<{7} ", re.MULTILINE)
_ENTRY = re.compile(r"\d{6} [0-9a-f]+ ([123])\t(.*)", re.DOTALL)


@record
class Conflict:
    """A file with a merge conflict."""

    path: str
    area: str
    kind: str
    """git's word for it: contents, modify/delete, add/add, rename/delete, ..."""
    hunks: int
    """places to resolve by hand; 1 if the conflict is about the whole file"""


@record
class Merge:
    """Outcome of one merge in memory."""

    tree: str
    """the resulting tree; files in conflict contain markers"""
    conflicts: tuple[Conflict, ...]
    left_out: tuple[str, ...] = ()
    """files that were left out, because both repositories lack their contents"""

    @property
    def clean(self) -> bool:
        """Whether there are no conflicts."""
        return not self.conflicts

    @property
    def hunks(self) -> int:
        """All places to resolve."""
        return sum(conflict.hunks for conflict in self.conflicts)


class Merger:
    """Merges trees of one scratch repository. `incomplete` makes the error for missing contents.

    Raises `MissingTool` when git is older than 2.38.
    """

    def __init__(self, repository: Repository, incomplete: Callable[[str], FetchFailed]) -> None:
        self._repository, self._incomplete = repository, incomplete
        self._reading = threading.Lock()
        if repository.version < (2, 38):
            raise MissingTool("git is too old to merge in memory", hint="install git 2.38 or newer")

    def merge(self, ours: str, theirs: str) -> Merge:
        """What `git merge theirs` would do on `ours`. Raises `FetchFailed` when contents are missing."""
        try:
            return self._merged(ours, theirs)
        except FetchFailed:
            base = self._repository.merge_base(ours, theirs)
            if base is None:
                raise
            return self._with_gaps(base, ours, theirs)

    def merge_from(self, base: str, ours: str, theirs: str) -> Merge:
        """A merge of two trees with `base` in place of their real merge base."""
        try:
            return self._merged(self.child(base, ours), self.child(base, theirs))
        except FetchFailed:
            return self._with_gaps(base, ours, theirs)

    def pick(self, commit: str, parent: str, onto: str) -> Merge:
        """What `git cherry-pick commit` would do on the tree `onto`; `parent` is the commit's own."""
        try:
            return self._merged(self.child(parent, onto), commit)
        except FetchFailed:
            return self._with_gaps(parent, onto, commit)

    def child(self, parent: str, tree: str) -> str:
        """A commit on `parent` with the tree of `tree`."""
        made = self._repository.git("commit-tree", f"{tree}^{{tree}}", "-p", parent, "-m", "dry run", env=_IDENTITY)
        return made.strip()

    def _merged(self, ours: str, theirs: str) -> Merge:
        try:
            output = self._repository.git(
                *("merge-tree", "--write-tree", "-z", "--messages", ours, theirs), accept=(0, 1)
            )
        except CommandFailed as error:
            if re.search(r"missing|bad object|could not read|unable to read", error.message):
                raise self._incomplete("the merge") from error
            raise
        return self._parsed(output)

    def _with_gaps(self, base: str, ours: str, theirs: str) -> Merge:
        """The merge without the files whose contents are missing in any of the trees.

        Some mirrors lack large test data. If at most one side changed such a file, its content does not matter. If both
        did, it is a conflict; for a file that is built, the merge is refused.
        """
        trees = [self.files(tree) for tree in (base, ours, theirs)]
        gone = self.missing({blob for files in trees for blob in files.values()})
        gaps = {path for files in trees for path, blob in files.items() if blob in gone}
        unread = sorted(path for path in gaps if len({files.get(path) for files in trees}) == len(trees))
        if not gaps or any(area_of(path) not in DATA for path in unread):
            raise self._incomplete(f"the merge of {', '.join(unread[:3]) or theirs[:12]}")
        bare = self._repository.git("commit-tree", self._without(base, gaps), "-m", "dry run", env=_IDENTITY).strip()
        merge = self._merged(*(self.child(bare, self._without(tree, gaps)) for tree in (ours, theirs)))
        unknown = tuple(Conflict(path=path, area=area_of(path), kind="unread", hunks=1) for path in unread)
        return replace(merge, conflicts=merge.conflicts + unknown, left_out=tuple(sorted(gaps)))

    def files(self, tree: str) -> dict[str, str]:
        return files_of(self._repository, tree)

    def missing(self, blobs: Iterable[str]) -> set[str]:
        output = self._repository.git("cat-file", "--batch-check", stdin="".join(f"{one}\n" for one in blobs).encode())
        return {line.split()[0] for line in output.splitlines() if line.endswith(" missing")}

    def _without(self, tree: str, paths: Iterable[str]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
            self._repository.git("read-tree", tree, env=env)
            removed = "".join(f"0 {'0' * 40}\t{path}\0" for path in paths).encode(errors="surrogateescape")
            self._repository.git("update-index", "-z", "--index-info", stdin=removed, env=env)
            return self._repository.git("write-tree", "--missing-ok", env=env).strip()

    def _parsed(self, output: str) -> Merge:
        tree, _, rest = output.partition("\0")
        stages: dict[str, set[str]] = {}
        fields = rest.split("\0")
        while fields and (entry := _ENTRY.fullmatch(fields[0])):
            stages.setdefault(entry.group(2), set()).add(entry.group(1))
            fields.pop(0)
        kinds = dict(_kinds(fields[1:]))
        conflicts = []
        for path, found in sorted(stages.items()):
            kind = "add/add" if found == {"2", "3"} else kinds.get(path, "contents")
            hunks = self._hunks(tree, path) if found == {"1", "2", "3"} or kind in ("contents", "add/add") else 1
            conflicts.append(Conflict(path=path, area=area_of(path), kind=kind, hunks=max(hunks, 1)))
        return Merge(tree=tree, conflicts=tuple(conflicts))

    def _hunks(self, tree: str, path: str) -> int:
        with self._reading:
            return len(_HUNK.findall(self._repository.read_blob(tree, path) or b""))


def _kinds(fields: list[str]) -> Iterable[tuple[str, str]]:
    """(path, kind) of each conflict in merge-tree's messages: count, paths, type, text, one after another."""
    position = 0
    while position < len(fields) and fields[position].strip().isdigit():
        count = int(fields[position])
        paths, kind = fields[position + 1 : position + 1 + count], fields[position + 1 + count]
        if found := _CONFLICT.match(kind):
            yield from ((path, found.group(1)) for path in paths)
        position += count + 3


def apply_in_order(
    repository: Repository, tree: str, patches: Mapping[str, bytes], folder: Path
) -> dict[str, list[str]]:
    """Apply patches to a tree one after another, in an index in `folder`; the files that each failed on, or none.

    A patch that the tree already contains counts as applied, as in Ollama's own build.
    """
    env = {"GIT_INDEX_FILE": str(folder / "index")}
    repository.git("read-tree", tree, env=env)
    failed: dict[str, list[str]] = {}
    for name, content in patches.items():
        patch = folder / "patch"
        patch.write_bytes(content)
        failed[name] = []
        if repository.succeeds("apply", "--cached", "--reverse", "--check", patch, env=env):
            continue
        try:
            repository.git("apply", "--cached", "--whitespace=nowarn", patch, env=env)
        except ToolchainError as error:
            paths = re.findall(r"^\s*error: (?:patch failed: )?(.+?)(?::\d+$|: )", error.message, re.MULTILINE)
            failed[name] = sorted(Counter(paths)) or [name]
    return failed
