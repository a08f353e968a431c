"""The branches of a fork against upstream: what does not depend on the date."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from ...core.console import Console
from ...core.records import record
from .areas import TURBO, by_area
from .branch import Activity, Base, Branch, Nearest, OwnCommit
from .content import (
    Edits,
    Lines,
    Trees,
    differences,
    edits_between,
    edits_of,
    equivalents,
    files_of,
    imports,
    line_counts,
    nearest,
    taken_over,
)
from .graph import CommitGraph, Node
from .join import Joined

_ABOUT_TURBO = re.compile(r"turbo(?!net)|polar[-_ ]?quant|\btbq", re.IGNORECASE)


@record
class Surveyed:
    """The facts of a fork's branches that do not depend on the date."""

    newest: Base
    branches: tuple[Branch, ...]
    untrue_tags: tuple[str, ...]


class BranchSurvey:
    """Shared by all branches: the graph, and upstream's edits since the fork began."""

    def __init__(self, joined: Joined, tips: dict[str, str], tags: dict[str, str], console: Console) -> None:
        self._joined, self._tips, self._tags, self._console = joined, tips, tags, console
        self._repository = joined.repository
        self.graph = CommitGraph(self._repository, [joined.newest, *tips.values(), *tags.values()])
        self.newest = self.graph.beyond(joined.newest)
        self._upstream = self.graph.ancestors([self.newest])
        self._own = {tip: self.graph.ancestors([tip], self._upstream) for tip in tips.values()}
        edges = {commit for tip, own in self._own.items() for commit in (self.graph.edge(own) if own else [])}
        self._oldest = min(edges, key=lambda commit: self.graph.build[commit], default=self.newest)
        self._theirs = edits_between(self._repository, self._oldest, self.newest)
        plain = {one for own in self._own.values() for one in own if len(self.graph.nodes[one].parents) == 1}
        self._edits = edits_of(self._repository, sorted(plain))
        present = self._contents(plain)
        taken = [edit for edits in self._theirs.values() for edit in edits]
        self._equivalent = equivalents(self._repository, {one: self._edits[one] for one in present}, self._theirs)
        self._imported = imports(self._edits, taken) - self._equivalent

    def _contents(self, plain: set[str]) -> set[str]:
        """The commits whose contents are available."""
        ids = {blob for one in plain for edit in self._edits[one] for blob in edit.blobs}
        missing = self._joined.obtain(ids, self._console)
        return {one for one in plain if not missing & {b for edit in self._edits[one] for b in (edit.old, edit.new)}}

    def _base(self, commit: str, by: Literal["history", "content"]) -> Base:
        """A commit of upstream's as a record."""
        return Base(commit=commit, date=_iso(self.graph.nodes[commit].date), build=self.graph.build[commit], by=by)

    def result(self) -> Surveyed:
        """Every branch against upstream."""
        tree = {commit: node.tree for commit, node in self.graph.nodes.items()}
        merge_bases = {tip: self._merge_base(tip) for tip in self._tips.values()}
        apart = {tip: (tree[base], tree[tip]) for tip, base in merge_bases.items() if base}
        since = differences(self._repository, apart.values())
        bases = {
            tip: taken_over(merge_bases[tip], since[pair], self._after(merge_bases[tip])) for tip, pair in apart.items()
        }
        lines = self._lines({(tree[base], tree[tip]) for tip, base in bases.items()})
        found = []
        for name, tip in self._tips.items():
            if tip in bases:
                files, unread = lines[tree[bases[tip]], tree[tip]]
                found.append(self._branch(name, tip, merge_bases[tip], bases[tip], files, unread))
            else:
                found.append(self._unrelated(name, tip))
        # A tag is only trusted if its number is the length of its commit's history.
        untrue = (tag for tag, commit in self._tags.items() if self.graph.build[commit] != int(tag[1:]))
        return Surveyed(newest=self._base(self.newest, "history"), branches=tuple(found), untrue_tags=tuple(untrue))

    def _merge_base(self, tip: str) -> str:
        """The newest of a branch's merge bases; empty if there is none."""
        return max(self.graph.bases(self._own[tip], tip), key=lambda commit: self.graph.build[commit], default="")

    def _unrelated(self, name: str, tip: str) -> Branch:
        return Branch(
            name=name,
            tip=tip,
            tip_date=_iso(self.graph.nodes[tip].date),
            default=name == self._joined.default,
            verdict="unrelated",
            nearest=self._nearest(tip),
            activity=_activity([]),
        )

    def _nearest(self, tip: str) -> Nearest | None:
        files = files_of(self._repository, tip)
        commit, equal = nearest(files, self._line)
        if not commit:
            return None
        base = self._base(commit, "content")
        return Nearest(commit=commit, date=base.date, build=base.build, equal=equal, files=len(files))

    @cached_property
    def _line(self) -> Edits:
        """Upstream's edits from its root on."""
        return edits_between(self._repository, "", self.newest)

    def _branch(self, name: str, tip: str, merge_base: str, base: str, files: list[Lines], unread: int) -> Branch:
        graph, own = self.graph, self._own[tip]
        merges = [node for node in graph.in_order(own) if len(node.parents) > 1]
        equivalent, imported = own & self._equivalent, own & self._imported
        work = graph.in_order(own - {node.id for node in merges} - equivalent - imported)
        areas = by_area(files)
        return Branch(
            name=name,
            tip=tip,
            tip_date=_iso(graph.nodes[tip].date),
            default=name == self._joined.default,
            verdict="unrelated",
            merge_base=self._base(merge_base, "history"),
            base=self._base(base, "history" if base == merge_base else "content"),
            behind=graph.build[self.newest] - graph.build[base],
            merges=len(merges),
            syncs=sum(1 for node in merges if self._upstream.intersection(node.parents)),
            equivalent=len(equivalent),
            imported=len(imported),
            own=tuple(
                OwnCommit(id=node.id, date=_iso(node.date), author=node.author, subject=node.subject) for node in work
            ),
            files=len(files),
            inserted=sum(inserted for _, inserted, _ in files),
            deleted=sum(deleted for _, _, deleted in files),
            areas=areas,
            unread=unread,
            turbo=any(change.area == TURBO for change in areas) or any(_ABOUT_TURBO.search(n.subject) for n in work),
            activity=_activity(work),
        )

    def _after(self, base: str) -> Edits:
        """Upstream's edits after `base`."""
        if base == self._oldest:
            return self._theirs
        if base not in self._theirs:
            return edits_between(self._repository, base, self.newest)
        commits = list(self._theirs)
        return {commit: self._theirs[commit] for commit in commits[commits.index(base) + 1 :]}

    def _lines(self, pairs: set[Trees]) -> dict[Trees, tuple[list[Lines], int]]:
        """The lines of every file that differs, and how many files could not be read, for each pair of trees."""
        changed = differences(self._repository, pairs)
        blobs = {blob for edits in changed.values() for edit in edits.values() for blob in edit.blobs}
        missing = self._joined.obtain(blobs, self._console)
        unread = {
            pair: sorted(path for path, edit in edits.items() if missing.intersection(edit.blobs))
            for pair, edits in changed.items()
        }
        counted = line_counts(self._repository, (pair for pair in pairs if not unread[pair]))
        for pair in pairs - counted.keys():
            read = sorted(changed[pair].keys() - set(unread[pair]))
            counted[pair] = line_counts(self._repository, [pair], read)[pair] if read else []
            counted[pair] += [(path, 0, 0) for path in unread[pair]]
        return {pair: (counted[pair], len(unread[pair])) for pair in pairs}


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _activity(work: list[Node]) -> Activity:
    last = _iso(max(node.date for node in work)) if work else ""
    return Activity(last=last, days_30=0, days_90=0, authors=len({node.author for node in work}))
