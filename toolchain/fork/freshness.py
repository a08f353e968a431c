"""How old a fork is and what is its own, branch by branch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from ..console import Console
from ..errors import Unrelated
from ..records import record
from .areas import TURBO, Change, by_area
from .content import Edits, difference, edits_between, edits_of, equivalents, imports, taken_over
from .graph import Graph
from .join import Joined

Verdict = Literal["fresh", "stale", "very stale", "unrelated"]
_DAY = 86400
_ABOUT_TURBO = re.compile(r"turbo(?!net)|polar[-_ ]?quant|\btbq", re.IGNORECASE)


@record
class Base:
    """The newest state of upstream that a branch holds."""

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
    """further commits that mostly bring upstream's bytes, such as squashed syncs"""
    own: tuple[OwnCommit, ...] = ()
    """what is left, oldest first"""
    files: int = 0
    inserted: int = 0
    deleted: int = 0
    areas: tuple[Change, ...] = ()
    """the difference from `base` to the tip"""
    unread: int = 0
    """files of that difference whose contents are missing, so that their lines are not counted"""
    turbo: bool = False
    """whether the branch's own work is about TurboQuant"""
    activity: Activity


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
    """build tags of the fork that are not on the commit of this number"""
    seconds: float = 0.0


def freshness(
    joined: Joined,
    console: Console,
    *,
    now: datetime,
    names: Sequence[str] = (),
    fresh_days: float = 14,
    stale_days: float = 28,
) -> Freshness:
    """Hold the branches `names` (or all) against upstream.

    A branch is fresh when its base is younger than `fresh_days`, stale up to `stale_days`. Raises `Unrelated` when no
    branch shares a commit with upstream, `UnknownRevision` for a branch that is gone.
    """
    started = datetime.now(tz=UTC)
    tips = joined.chosen(names)
    survey = Survey(joined, tips, console, now)
    found = [survey.branch(name, tip, fresh_days, stale_days) for name, tip in tips.items()]
    if all(branch.verdict == "unrelated" for branch in found):
        raise Unrelated(
            f"{joined.fork.git_dir}: {'no branch shares' if len(found) > 1 else f'{found[0].name} does not share'}"
            f" a commit with {joined.upstream.git_dir}",
            hint="check --fork and --llama-cpp; a fork started from a source archive has no history to compare",
        )
    found.sort(key=rank)
    return Freshness(
        fork=str(joined.fork.git_dir),
        now=now.astimezone(UTC).isoformat(timespec="seconds"),
        newest=survey.base(survey.newest, "history"),
        mirror_build=max(joined.builds),
        branches=tuple(found),
        verdict=found[0].verdict,
        untrue_tags=_untrue_tags(joined, survey.graph),
        seconds=round((datetime.now(tz=UTC) - started).total_seconds(), 2),
    )


def rank(branch: Branch) -> tuple[bool, bool, bool, float, int, str]:
    """Sort key of the branches: related, about TurboQuant, with work of their own; then the freshest and fullest."""
    return (branch.base is None, not branch.turbo, not branch.own, branch.age_days, -len(branch.own), branch.name)


class Survey:
    """What all branches share: the graph, and upstream's edits since the fork began."""

    def __init__(self, joined: Joined, tips: dict[str, str], console: Console, now: datetime) -> None:
        self._joined, self._console, self._now = joined, console, now.timestamp()
        self._repository = joined.repository
        self.graph = Graph(self._repository, [joined.newest, *tips.values(), *joined.build_tags().values()])
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
        """The commits whose contents are at hand."""
        ids = {blob for one in plain for edit in self._edits[one] for blob in edit.blobs}
        missing = self._joined.obtain(ids, self._console)
        return {one for one in plain if not missing & {b for edit in self._edits[one] for b in (edit.old, edit.new)}}

    def base(self, commit: str, by: Literal["history", "content"]) -> Base:
        """A commit of upstream's as a record."""
        return Base(commit=commit, date=_iso(self.graph.nodes[commit].date), build=self.graph.build[commit], by=by)

    def branch(self, name: str, tip: str, fresh_days: float, stale_days: float) -> Branch:
        """One branch against upstream."""
        graph, own = self.graph, self._own[tip]
        bases = graph.bases(own, tip)
        date = _iso(graph.nodes[tip].date)
        merges = [node for node in graph.in_order(own) if len(node.parents) > 1]
        equivalent, imported = own & self._equivalent, own & self._imported
        noise = {node.id for node in merges} | equivalent | imported
        work = graph.in_order(own - noise)
        activity = self._activity([node.date for node in work], {node.author for node in work})
        if not bases:
            return Branch(name=name, tip=tip, tip_date=date, verdict="unrelated", activity=activity)
        merge_base = max(bases, key=lambda commit: graph.build[commit])
        base = taken_over(merge_base, difference(self._repository, merge_base, tip), self._after(merge_base))
        files, unread = self._lines(base, tip)
        areas = by_area(files)
        age = (self._now - graph.nodes[base].date) / _DAY
        return Branch(
            name=name,
            tip=tip,
            tip_date=date,
            verdict="fresh" if age < fresh_days else "stale" if age <= stale_days else "very stale",
            merge_base=self.base(merge_base, "history"),
            base=self.base(base, "history" if base == merge_base else "content"),
            age_days=round(age, 2),
            behind=len(self._upstream) - len(graph.ancestors([base])),
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
            activity=activity,
        )

    def _after(self, base: str) -> Edits:
        """Upstream's edits after `base`."""
        if base == self._oldest:
            return self._theirs
        if base not in self._theirs:
            return edits_between(self._repository, base, self.newest)
        commits = list(self._theirs)
        return {commit: self._theirs[commit] for commit in commits[commits.index(base) + 1 :]}

    def _lines(self, base: str, tip: str) -> tuple[list[tuple[str, int, int]], int]:
        """(path, inserted, deleted) of every file that differs, and how many of them could not be read."""
        changed = difference(self._repository, base, tip)
        ids = {blob for edit in changed.values() for blob in edit.blobs}
        missing = self._joined.obtain(ids, self._console)
        unread = [path for path, edit in changed.items() if missing & {edit.old, edit.new}]
        if len(unread) == len(changed):
            return [(path, 0, 0) for path in unread], len(unread)
        told = self._repository.git(
            *("diff-tree", "-r", "--numstat", "--no-renames", base, tip),
            *(("--", ".", *(f":(exclude,literal){path}" for path in unread)) if unread else ()),
        )
        lines = [(path, 0, 0) for path in unread]
        for line in told.splitlines():
            inserted, deleted, path = line.split("\t", 2)
            lines.append((path, int(inserted) if inserted != "-" else 0, int(deleted) if deleted != "-" else 0))
        return lines, len(unread)

    def _activity(self, dates: list[int], authors: set[str]) -> Activity:
        def within(days: int) -> int:
            return sum(1 for date in dates if 0 <= self._now - date <= days * _DAY)

        last = _iso(max(dates)) if dates else ""
        return Activity(last=last, days_30=within(30), days_90=within(90), authors=len(authors))


def _untrue_tags(joined: Joined, graph: Graph) -> tuple[str, ...]:
    """Build tags whose number is not the length of their commit's history."""
    return tuple(tag for tag, commit in joined.build_tags().items() if graph.build[commit] != int(tag[1:]))


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
