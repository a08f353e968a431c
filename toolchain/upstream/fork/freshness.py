"""The age and own work of a fork, for each branch."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ...core.console import Console
from ...core.errors import Unrelated
from ...core.records import record
from .areas import TURBO, AreaChange, by_area
from .content import (
    Edits,
    Lines,
    Trees,
    differences,
    edits_between,
    edits_of,
    equivalents,
    imports,
    line_counts,
    taken_over,
)
from .graph import CommitGraph, Node
from .join import Joined
from .kept import kept

Verdict = Literal["fresh", "stale", "very stale", "unrelated"]
_DAY = 86400
_ABOUT_TURBO = re.compile(r"turbo(?!net)|polar[-_ ]?quant|\btbq", re.IGNORECASE)


@record
class Base:
    """The newest state of upstream that a branch contains."""

    commit: str
    date: str
    """committer date, UTC, ISO 8601"""
    build: int
    """number of commits in its history, llama.cpp's build number"""
    by: Literal["history", "content"]
    """history: the merge base. Content: a newer commit whose files the branch took over under commits of its own"""


@record
class OwnCommit:
    """A commit that is the fork's work."""

    id: str
    date: str
    author: str
    subject: str


@record
class Activity:
    """The fork's own commits, by age before `now`."""

    last: str
    days_30: int
    days_90: int
    authors: int


@record
class Branch:
    """One branch against upstream. Without a common ancestor, all but name, tip and verdict are empty."""

    name: str
    tip: str
    tip_date: str
    default: bool = False
    """whether the fork's HEAD names it"""
    verdict: Verdict
    merge_base: Base | None = None
    base: Base | None = None
    age_days: float = 0.0
    """age of `base`"""
    behind: int = 0
    """upstream's commits after `base`"""
    merges: int = 0
    """merge commits, which are not counted as own"""
    syncs: int = 0
    """those of them that merged upstream"""
    equivalent: int = 0
    """commits that make the same change as one of upstream's"""
    imported: int = 0
    """further commits that mostly import upstream's files, such as squashed syncs"""
    own: tuple[OwnCommit, ...] = ()
    """the remaining own commits, oldest first"""
    files: int = 0
    inserted: int = 0
    deleted: int = 0
    areas: tuple[AreaChange, ...] = ()
    """the difference from `base` to the tip"""
    unread: int = 0
    """files of that difference whose contents are missing, so that their lines are not counted"""
    turbo: bool = False
    """whether the branch's own work is about TurboQuant"""
    activity: Activity


@record
class Surveyed:
    """The facts of a fork's branches that do not depend on the date."""

    newest: Base
    branches: tuple[Branch, ...]
    untrue_tags: tuple[str, ...]


@record
class Freshness:
    """A fork's branches, the most promising first."""

    fork: str
    now: str
    newest: Base
    """upstream's newest commit, in its mirror or in the fork"""
    mirror_build: int
    """newest build of the mainline in upstream's mirror"""
    branches: tuple[Branch, ...]
    verdict: Verdict
    """of the first branch"""
    untrue_tags: tuple[str, ...]
    """tags of the fork that are not on the commit of this build, or of upstream's version"""
    seconds: float = 0.0


def freshness(
    joined: Joined,
    console: Console,
    *,
    now: datetime,
    names: Sequence[str] = (),
    fresh_days: float = 14,
    stale_days: float = 28,
    folder: Path | None = None,
) -> Freshness:
    """Compare the branches `names` (or all) with upstream.

    A branch is fresh when its base is younger than `fresh_days`, stale up to `stale_days`. What does not depend on the
    date is cached in `folder`. Raises `Unrelated` when no branch shares a commit with upstream, `UnknownRevision` for a
    missing branch.
    """
    started = time.monotonic()
    tips, tags = joined.chosen(names), joined.build_tags()
    surveyed = kept(
        folder,
        Surveyed,
        [joined.newest, joined.default, tips, tags, joined.stamp()],
        lambda: _BranchSurvey(joined, tips, tags, console).result(),
    )
    found = sorted((_on(branch, now, fresh_days, stale_days) for branch in surveyed.branches), key=rank)
    if all(branch.verdict == "unrelated" for branch in found):
        raise Unrelated(
            f"{joined.fork.git_dir}: {'no branch shares' if len(found) > 1 else f'{found[0].name} does not share'}"
            f" a commit with {joined.upstream.git_dir}",
            hint="check --fork and --llama-cpp; a fork started from a source archive has no history to compare",
        )
    return Freshness(
        fork=str(joined.fork.git_dir),
        now=now.astimezone(UTC).isoformat(timespec="seconds"),
        newest=surveyed.newest,
        mirror_build=max(joined.builds),
        branches=tuple(found),
        verdict=found[0].verdict,
        untrue_tags=(*surveyed.untrue_tags, *joined.untrue_versions()),
        seconds=round(time.monotonic() - started, 2),
    )


def _on(branch: Branch, now: datetime, fresh_days: float, stale_days: float) -> Branch:
    """The branch as of a day."""
    dates = [datetime.fromisoformat(own.date) for own in branch.own]

    def within(days: int) -> int:
        return sum(1 for date in dates if 0 <= (now - date).total_seconds() <= days * _DAY)

    activity = replace(branch.activity, days_30=within(30), days_90=within(90))
    if branch.base is None:
        return replace(branch, activity=activity)
    age = (now - datetime.fromisoformat(branch.base.date)).total_seconds() / _DAY
    verdict: Verdict = "fresh" if age < fresh_days else "stale" if age <= stale_days else "very stale"
    return replace(branch, age_days=round(age, 2), verdict=verdict, activity=activity)


def rank(branch: Branch) -> tuple[bool, bool, bool, float, bool, int, str]:
    """Sort key: related, about TurboQuant, with work of its own; then the freshest, the default one, the fullest."""
    return (
        *(branch.base is None, not branch.turbo, not branch.own, branch.age_days),
        *(not branch.default, -len(branch.own), branch.name),
    )


class _BranchSurvey:
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
        date = _iso(self.graph.nodes[tip].date)
        return Branch(name=name, tip=tip, tip_date=date, verdict="unrelated", activity=_activity([]))

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
