"""Conflicts of merging or cherry-picking a fork onto the pinned upstream. Nothing is checked out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ...core.console import Console
from ...core.errors import Unrelated
from ...core.records import record, sha256_bytes
from .areas import AREAS, KV, METAL, STOP, TURBO
from .branch import Branch
from .content import difference
from .join import Joined
from .kept import kept
from .merging import Conflict, Merge, Merger, apply_in_order
from .picks import Picker

_MINUTES: Mapping[str, float] = {KV: 10, METAL: 10, "CUDA": 5, "CPU": 5, "ggml core": 5, "llama": 5, TURBO: 2}
_OTHER_MINUTES = 2.0
MERGE, FROM_CONTENT, PICKS = "merge", "merge from the base that the contents show", "cherry-picks in order"
BASIS = (
    "minutes for each place to resolve: 10 in the core KV cache and Metal, where a mistake produces garbage and not a"
    " failed build; 5 in other code of ggml and llama; 2 elsewhere. A guess to compare with a time box, not measured"
)


@record
class AreaConflicts:
    """Conflicts of one area."""

    area: str
    files: int
    hunks: int


@record
class MergeOutcome:
    """A way to bring the fork's work onto the pin, with its conflicts."""

    how: str
    base: str
    """commit that is used as merge base"""
    areas: tuple[AreaConflicts, ...]
    conflicts: tuple[Conflict, ...]
    left_out: tuple[str, ...]
    """files that were left out, because their contents are missing"""
    minutes: float
    """estimate of the work to resolve the conflicts, on `BASIS`"""
    stop: tuple[str, ...]
    """areas in conflict that end the path at once"""
    patches: tuple[PatchResult, ...]
    """third parties on top of the result"""


@record
class PatchResult:
    """A third party's patch, first on the pin alone, then on the outcome."""

    name: str
    on_pin: tuple[str, ...]
    """files that it fails on without the fork; empty: it applies"""
    on_outcome: tuple[str, ...]


@record
class Pick:
    """A commit of the fork, cherry-picked in memory."""

    commit: str
    subject: str
    alone: bool
    """whether it applies without a conflict when it is the only one on the pin"""
    in_order: tuple[Conflict, ...]
    """its conflicts after those before it that went in; it is passed over when there are any"""


@record
class Conflicts:
    """One branch onto the pin."""

    branch: str
    tip: str
    onto: str
    as_it_stands: tuple[PatchResult, ...]
    """third parties on top of the branch itself, which is what building it needs"""
    outcomes: tuple[MergeOutcome, ...]
    """a merge by git's own merge base; where the branch's base shows in its contents alone, also one from there; and
    the cherry-picks in order"""
    picks: tuple[Pick, ...]
    picks_alone: int
    """how many commits apply alone without a conflict"""
    picks_in_order: int
    basis: str = BASIS
    conflict_box: float
    """minutes of conflicts after which a path ends"""
    seconds: float = 0.0

    @property
    def best(self) -> MergeOutcome:
        """The outcome with the least work, one that does not stop if there is one."""
        return min(self.outcomes, key=lambda outcome: (bool(outcome.stop), outcome.minutes))


def conflicts(
    joined: Joined,
    branch: Branch,
    onto: str,
    console: Console,
    *,
    patches: Mapping[str, bytes],
    conflict_minutes: float = 15,
    folder: Path | None = None,
) -> Conflicts:
    """Merge and cherry-pick a branch onto the commit `onto` of upstream, with third parties' patches on the results.

    `patches` are applied one after another. The result is kept in `folder`. Raises `FetchFailed` when contents are
    missing, `Unrelated`, `MissingTool` for a git before 2.38.
    """
    started = time.monotonic()
    if branch.base is None or branch.merge_base is None:
        raise Unrelated(
            f"{branch.name} shares no commit with {joined.upstream.git_dir}", hint="choose another one with --branch"
        )
    digests = {name: sha256_bytes(content) for name, content in patches.items()}
    found = kept(
        folder,
        Conflicts,
        [
            *(branch.name, branch.tip, branch.base.commit, branch.merge_base.commit, onto),
            *(digests, conflict_minutes, joined.stamp()),
        ],
        lambda: _dry_run(joined, branch, onto, console, patches, conflict_minutes),
    )
    return replace(found, seconds=round(time.monotonic() - started, 2))


def _dry_run(
    joined: Joined, branch: Branch, onto: str, console: Console, patches: Mapping[str, bytes], conflict_minutes: float
) -> Conflicts:
    assert branch.base is not None
    assert branch.merge_base is not None
    _fetch(joined, branch, onto, console)
    merger = Merger(joined.repository, joined.incomplete)
    work = _Dry(joined, merger, onto, patches)
    outcomes = [work.outcome(MERGE, branch.merge_base.commit, merger.merge(onto, branch.tip))]
    if branch.base.by == "content":
        merged = merger.merge_from(branch.base.commit, onto, branch.tip)
        outcomes.append(work.outcome(FROM_CONTENT, branch.base.commit, merged))
    picks, last = work.picks(branch)
    if picks:
        skipped = tuple(one for pick in picks for one in pick.in_order)
        outcomes.append(work.outcome(PICKS, branch.base.commit, Merge(tree=last, conflicts=skipped)))
    return Conflicts(
        branch=branch.name,
        tip=branch.tip,
        onto=onto,
        as_it_stands=work.patched(branch.tip),
        outcomes=tuple(outcomes),
        picks=tuple(picks),
        picks_alone=sum(1 for pick in picks if pick.alone),
        picks_in_order=sum(1 for pick in picks if not pick.in_order),
        conflict_box=conflict_minutes,
    )


def estimate(found: Iterable[Conflict]) -> float:
    """Minutes to resolve these conflicts, on `BASIS`."""
    return sum((conflict.hunks * _MINUTES.get(conflict.area, _OTHER_MINUTES) for conflict in found), 0.0)


class _Dry:
    """Dry runs onto one commit."""

    def __init__(self, joined: Joined, merger: Merger, onto: str, patches: Mapping[str, bytes]) -> None:
        self._repository, self._merger, self._onto, self._patches = joined.repository, merger, onto, patches
        self._on_pin = self._applied(onto)

    def outcome(self, how: str, base: str, merge: Merge) -> MergeOutcome:
        """The record of a merge, with third-party patches on top."""
        return MergeOutcome(
            how=how,
            base=base,
            areas=tuple(
                AreaConflicts(area=area, files=len({c.path for c in some}), hunks=sum(c.hunks for c in some))
                for area in AREAS
                if (some := [conflict for conflict in merge.conflicts if conflict.area == area])
            ),
            conflicts=merge.conflicts,
            left_out=merge.left_out,
            minutes=estimate(merge.conflicts),
            stop=tuple(area for area in STOP if any(conflict.area == area for conflict in merge.conflicts)),
            patches=self.patched(merge.tree),
        )

    def patched(self, tree: str) -> tuple[PatchResult, ...]:
        """Results of the third-party patches on a tree."""
        applied = self._applied(tree)
        return tuple(
            PatchResult(name=name, on_pin=tuple(self._on_pin[name]), on_outcome=tuple(applied[name]))
            for name in self._patches
        )

    def picks(self, branch: Branch) -> tuple[list[Pick], str]:
        """Every commit of the branch's own, alone and in order; and the tree after the last."""
        own = {one.id: one.subject for one in branch.own}
        if not own:
            return [], self._onto
        picker = Picker(self._repository, self._merger, self._onto, list(own))
        found = [
            Pick(commit=commit, subject=subject, alone=alone, in_order=picker.take(commit))
            for (commit, subject), alone in zip(own.items(), picker.alone(), strict=True)
        ]
        return found, picker.tree()

    def _applied(self, tree: str) -> dict[str, list[str]]:
        with tempfile.TemporaryDirectory() as folder:
            return apply_in_order(self._repository, tree, self._patches, Path(folder))


def _fetch(joined: Joined, branch: Branch, onto: str, console: Console) -> None:
    """Fetch into our mirror what the merges need; what a local repository lacks is found when it is read."""
    assert branch.base is not None
    assert branch.merge_base is not None
    bases = {branch.base.commit, branch.merge_base.commit}
    joined.obtain(
        (
            blob
            for base in bases
            for tip in (branch.tip, onto)
            for edit in difference(joined.repository, base, tip).values()
            for blob in edit.blobs
        ),
        console,
    )
