"""Whether edits apply to many trees, computed in parallel and cached.

Whether an edit applies depends only on the edit and on the contents of its files. So each content is judged once, by
its git id, and the result is cached in the workspace for the next survey.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from ..core.console import Console
from ..core.errors import RecordError, ToolchainError
from ..core.records import read, record, sha256_bytes, sha256_file, to_json, write
from ..sources.repository import Repository
from ..stages import Target
from .edit import Edit, Probe, Splice, splice_all
from .facts import Facts, read_facts
from .manifest import LoadedPart, Series
from .render import outcome_of, read_text, served_parts
from .tree import Tree

_JUDGING = ("edit", "facts", "lexing", "manifest", "outcomes", "place", "render", "tree")
_ENGINE = [sha256_file(Path(__file__).with_name(f"{name}.py")) for name in _JUDGING]
"""version of the engine; results of older engines are ignored"""
HOLDS = ("applies", "upstreamed", "skipped")
_ALONE = 6
"""fewer jobs than this do not pay for extra processes"""


@record
class EditState:
    """The outcome of one edit on one content."""

    name: str
    file: str
    status: str
    reason: str = ""

    @property
    def holds(self) -> bool:
        """Whether the series needs no change here."""
        return self.status in HOLDS


@record
class Judged:
    """The states of a file's edits on one content of the file."""

    states: tuple[EditState, ...]


@record
class _Kept:
    judged: dict[str, Judged]


@record
class JudgeJob:
    """A file of a tree, and the edits to try on it."""

    key: str
    git_dir: Path
    target: Target
    commit: str
    version: str
    facts: Facts
    file: str
    edits: tuple[tuple[Edit, LoadedPart], ...]


class Memory:
    """Judgements by content, kept in a file of the workspace."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known: dict[str, Judged] = {}
        self.made = 0
        # missing before the first survey; one of another version is ignored
        with contextlib.suppress(RecordError):
            self.known = read(path, _Kept).judged

    def learn(self, jobs: Iterable[JudgeJob], console: Console, title: str) -> None:
        """Judge unknown contents, on all processors, and store the results."""
        todo = {job.key: job for job in jobs if job.key not in self.known}
        if not todo:
            return
        if len(todo) < _ALONE:
            self.known |= dict(map(judge, todo.values()))
        else:
            with console.step(f"{title}: {len(todo)} contents") as step:
                for done, (key, judged) in enumerate(_in_parallel(list(todo.values())), start=1):
                    self.known[key] = judged
                    step.update(done, len(todo))
        self.made += len(todo)
        write(self._path, _Kept(judged=dict(sorted(self.known.items()))))


def _in_parallel(jobs: list[JudgeJob]) -> Iterator[tuple[str, Judged]]:
    # spawned, since a forked child would share our git readers' pipes
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(jobs)), mp_context=context) as pool:
        yield from pool.map(judge, jobs, chunksize=4)


def judge(job: JudgeJob) -> tuple[str, Judged]:
    """Try a file's edits on it, one by one and together."""
    with Repository(job.git_dir) as repository:
        tree = Tree(target=job.target, repository=repository, commit=job.commit, version=job.version)
        states, splices = list[EditState](), list[Splice]()
        for edit, part in job.edits:
            found = outcome_of(edit, part, tree, job.facts)
            reason = found.reason.splitlines()[0] if found.reason else ""
            states.append(EditState(name=found.name, file=job.file, status=found.status, reason=reason))
            splices += found.splices
        try:
            splice_all(read_text(tree, job.file) or "", splices)
        except ToolchainError as error:
            states = [replace(one, status="broken", reason=error.message) for one in states]
    return job.key, Judged(states=tuple(states))


def jobs_on(series: Series, trees: Sequence[Tree]) -> list[JudgeJob]:
    """The jobs of the last of `trees`; facts are read from all. Raises the errors of facts and of unsupported trees."""
    tree = trees[-1]
    files: dict[str, list[tuple[Edit, LoadedPart]]] = {}
    for loaded in served_parts(series, tree):
        bare = replace(loaded, edits=(), patch=b"", files={})
        for edit in loaded.edits:
            files.setdefault(edit.file, []).append((edit, bare))
    facts = read_facts(series, tuple(trees))
    looked = {probe.file for edits in files.values() for edit, _ in edits for probe in _probes(edit)}
    blobs = contents(tree, [*files, *sorted(looked)])
    return [
        JudgeJob(
            key=_key(file, edits, blobs, facts),
            git_dir=tree.repository.git_dir,
            target=tree.target,
            commit=tree.commit,
            version=tree.version,
            facts=facts,
            file=file,
            edits=tuple(edits),
        )
        for file, edits in files.items()
    ]


def contents(tree: Tree, paths: Sequence[str]) -> dict[str, str]:
    """Git ids of the contents of those files that the tree has."""
    listed = tree.repository.git("ls-tree", "-z", "--full-tree", tree.commit, "--", *paths)
    entries = (entry.split("\t", 1) for entry in listed.split("\0")[:-1])
    return {path: words.split()[2] for words, path in entries}


def _probes(edit: Edit) -> list[Probe]:
    return [probe for probe in (edit.upstreamed_when, edit.not_if) if probe]


def _key(file: str, edits: list[tuple[Edit, LoadedPart]], blobs: dict[str, str], facts: Facts) -> str:
    looked = [file, *sorted({probe.file for edit, _ in edits for probe in _probes(edit)})]
    anchored = any("{" in edit.anchor for edit, _ in edits)
    what = {
        "edits": [(part.part.edits, edit) for edit, part in edits],
        "contents": [blobs.get(path, "") for path in looked],
        "facts": facts if anchored else {},
        "engine": _ENGINE,
    }
    return sha256_bytes(to_json(what).encode())[:32]
