"""What commits changed, by blob: finds upstream's work in a fork's own commits.

A squash or a rebase cuts the link between a fork's commit and upstream's. The files still show it: if both have the
same bytes at the same path, the fork took them from upstream.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from ...core.records import record
from ...sources.repository import Repository

_RAW = re.compile(r":(\d+) (\d+) ([0-9a-f]+) ([0-9a-f]+) \w+\t(.*)")
_FORMAT = ("--root", "--raw", "--no-abbrev", "--no-renames", "--format=%x00%H")
_KEPT_BACK = 0.02
"""share of files that may still be old in a fork that took over a state of upstream"""
_IMPORTED = 0.5
"""share of a commit's files that must equal upstream's for the commit to be an import"""


@record
class FileEdit:
    """One path in one commit: blob ids and modes before and after, all zeros where there is no file."""

    path: str
    old: str
    new: str
    old_mode: str
    new_mode: str

    @property
    def blobs(self) -> list[str]:
        """The ids of existing blobs."""
        return [blob for blob in (self.old, self.new) if blob.strip("0")]


Edits = Mapping[str, Sequence[FileEdit]]
Trees = tuple[str, str]
"""ids of two trees, the old one first"""
Lines = tuple[str, int, int]
"""path, lines inserted, lines deleted; 0 and 0 for a binary file"""


def edits_between(repository: Repository, old: str, new: str) -> Edits:
    """Edits of each commit on the first-parent line after `old` (empty: from its root on) up to `new`, oldest first."""
    log = repository.git("log", "--first-parent", "--reverse", *_FORMAT, f"{old}..{new}" if old else new)
    return dict(_parsed(log))


def edits_of(repository: Repository, commits: Iterable[str]) -> Edits:
    """Edits of each of these commits against its first parent."""
    asked = "".join(f"{commit}\n" for commit in commits)
    if not asked:
        return {}
    return dict(_parsed(repository.git("log", "--no-walk=unsorted", "--stdin", *_FORMAT, stdin=asked.encode())))


def files_of(repository: Repository, tree: str) -> dict[str, str]:
    """The blob id of every file of a tree or commit, by path."""
    listed = repository.git("ls-tree", "-r", "-z", "--full-tree", tree).split("\0")[:-1]
    return {path: meta.split()[2] for meta, path in (entry.split("\t", 1) for entry in listed)}


def difference(repository: Repository, old: str, new: str) -> dict[str, FileEdit]:
    """Edits that lead from one tree to another, by path."""
    told = repository.git("diff-tree", "-r", "--raw", "--no-abbrev", "--no-renames", old, new)
    return {edit.path: edit for edit in _edits(told.splitlines())}


def differences(repository: Repository, pairs: Iterable[Trees]) -> dict[Trees, dict[str, FileEdit]]:
    """`difference` of many pairs of tree ids at once."""
    return {
        pair: {edit.path: edit for edit in _edits(told)}
        for pair, told in _compared(repository, pairs, "--raw", "--no-abbrev").items()
    }


def line_counts(repository: Repository, pairs: Iterable[Trees], paths: Sequence[str] = ()) -> dict[Trees, list[Lines]]:
    """The lines of every file that differs, or of those in `paths`, for many pairs of trees at once."""
    counts = {}
    only = ("--", *(f":(literal){path}" for path in paths)) if paths else ()
    for pair, told in _compared(repository, pairs, "--numstat", *only).items():
        rows = (line.split("\t", 2) for line in told)
        counts[pair] = [(_path(path), _number(inserted), _number(deleted)) for inserted, deleted, path in rows]
    return counts


def _compared(repository: Repository, pairs: Iterable[Trees], *form: str) -> dict[Trees, list[str]]:
    asked = list(dict.fromkeys(pairs))
    if not asked:
        return {}
    stdin = "".join(f"{old} {new}\n" for old, new in asked).encode()
    told = repository.git("diff-tree", "--stdin", "-r", "--no-renames", *form, stdin=stdin)
    found: dict[Trees, list[str]] = {pair: [] for pair in asked}
    here: list[str] = []
    for line in told.splitlines():
        heads = tuple(line.split(" "))
        if heads in found:
            here = found[heads]
        else:
            here.append(line)
    return found


def taken_over(base: str, fork: Mapping[str, FileEdit], upstream: Edits) -> str:
    """The newest commit of upstream's whose content the fork has, `base` or later.

    `fork` are the edits from `base` to the fork's tip, `upstream` those on upstream's line after `base`. A state of
    upstream was taken over if nearly all files that upstream changed up to it either have upstream's bytes in the
    fork or were changed by both, and most have upstream's bytes. Of several, the one with the most.
    """
    first: dict[str, str] = {}
    kinds: dict[str, str] = {}
    counts = {"taken": 0, "left": 0, "both": 0}
    best, best_score = base, 0
    for commit, edits in upstream.items():
        for edit in edits:
            before = first.setdefault(edit.path, edit.old)
            own = fork.get(edit.path)
            here = own.new if own else before
            if edit.path in kinds:
                counts[kinds.pop(edit.path)] -= 1
            if edit.new != before:
                kind = "taken" if here == edit.new else "left" if here == before else "both"
                kinds[edit.path] = kind
                counts[kind] += 1
        score = counts["taken"] - counts["left"]
        whole = counts["left"] <= _KEPT_BACK * counts["taken"] and counts["taken"] > counts["both"]
        if whole and score > best_score:
            best, best_score = commit, score
    return best


def nearest(fork: Mapping[str, str], upstream: Edits) -> tuple[str, int]:
    """The commit of upstream's whose files differ least from the fork's, and how many are the same in both.

    `fork` are blob ids by path, `upstream` the edits from upstream's root on. Of several commits the oldest, so that no
    fork is taken to be fresher than its files show. Empty and 0 if less than half of that commit's files are in the
    fork: then it is no fork of this upstream.
    """
    here: dict[str, str] = {}
    best, best_equal, least, same, enough = "", 0, 0, 0, False
    for commit, edits in upstream.items():
        for edit in edits:
            same -= edit.path in here and here.pop(edit.path) == fork.get(edit.path)
            if edit.new.strip("0"):
                here[edit.path] = edit.new
                same += fork.get(edit.path) == edit.new
        apart = len(here) + len(fork) - 2 * same
        if not best or apart < least:
            best, best_equal, least, enough = commit, same, apart, same >= _IMPORTED * len(here)
    return (best, best_equal) if enough else ("", 0)


def imports(own: Edits, upstream: Iterable[FileEdit]) -> set[str]:
    """Commits of the fork whose files mostly equal upstream's: squashed syncs, or cherry-picks."""
    theirs: dict[str, set[str]] = {}
    for edit in upstream:
        theirs.setdefault(edit.path, set()).add(edit.new)
    found = set()
    for commit, edits in own.items():
        same = sum(1 for edit in edits if edit.new in theirs.get(edit.path, ()))
        if same and same >= _IMPORTED * len(edits):
            found.add(commit)
    return found


def equivalents(repository: Repository, own: Edits, upstream: Edits) -> set[str]:
    """Commits of the fork that make the same change as one of upstream's (`git patch-id`).

    Only commits that touch the same files are compared. A change whose contents are missing is not compared.
    """
    by_paths: dict[frozenset[str], list[str]] = {}
    for commit, edits in upstream.items():
        by_paths.setdefault(frozenset(edit.path for edit in edits), []).append(commit)
    pairs = {
        commit: by_paths[paths]
        for commit, edits in own.items()
        if edits and (paths := frozenset(edit.path for edit in edits)) in by_paths
    }
    theirs = patch_ids(repository, {other for others in pairs.values() for other in others})
    mine = patch_ids(repository, pairs.keys())
    return {
        commit
        for commit, others in pairs.items()
        if commit in mine and mine[commit] in {theirs[other] for other in others if other in theirs}
    }


def patch_ids(repository: Repository, commits: Set[str]) -> dict[str, str]:
    """`git patch-id --stable` of each commit."""
    if not commits:
        return {}
    asked = "".join(f"{commit}\n" for commit in sorted(commits)).encode()
    log = repository.git(
        *("log", "--no-walk=unsorted", "--stdin", "-p", "--no-renames", "--full-index", "--no-ext-diff"),
        *("--no-textconv", "--no-color", "--format=commit %H"),
        stdin=asked,
    )
    told = repository.git("patch-id", "--stable", stdin=log.encode(errors="surrogateescape"))
    return {commit: patch for patch, commit in (line.split() for line in told.splitlines())}


def _parsed(log: str) -> Iterator[tuple[str, tuple[FileEdit, ...]]]:
    for part in log.split("\0")[1:]:
        commit, *lines = part.splitlines()
        yield commit, tuple(_edits(lines))


def _edits(lines: Iterable[str]) -> Iterator[FileEdit]:
    for line in lines:
        if found := _RAW.match(line):
            old_mode, new_mode, old, new, path = found.groups()
            yield FileEdit(path=_path(path), old=old, new=new, old_mode=old_mode, new_mode=new_mode)


def _number(shown: str) -> int:
    return 0 if shown == "-" else int(shown)


def _path(shown: str) -> str:
    """A path unquoted: git quotes paths with special characters."""
    if not shown.startswith('"'):
        return shown
    return codecs.escape_decode(shown[1:-1].encode(errors="surrogateescape"))[0].decode(errors="surrogateescape")
