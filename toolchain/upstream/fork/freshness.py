"""The age and own work of a fork, for each branch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ...core.console import Console
from ...core.errors import Unrelated
from ...core.records import record
from .branch import Base, Branch, Verdict
from .join import Joined
from .kept import kept
from .survey import BranchSurvey, Surveyed

_DAY = 86400


@record
class Freshness:
    """A fork's branches, the most promising first."""

    fork: str
    now: str
    newest: Base
    """upstream's newest commit, in its mirror or in the fork"""
    newest_days: float
    """its age at `now`: how old what is known of upstream is"""
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

    A branch is fresh when its base is less than `fresh_days` older than upstream's newest commit (that of the day
    `now`, if it is in the past), stale up to `stale_days`. What does not depend on the date is cached in `folder`.
    Raises `Unrelated` when no branch shares a commit with upstream or most of its files, `UnknownRevision` for a
    missing branch.
    """
    started = time.monotonic()
    tips, tags = joined.chosen(names), joined.build_tags()
    surveyed = kept(
        folder,
        Surveyed,
        [joined.newest, joined.default, tips, tags, joined.stamp()],
        lambda: BranchSurvey(joined, tips, tags, console).result(),
    )
    head = datetime.fromisoformat(surveyed.newest.date)
    found = sorted((_on(branch, now, min(head, now), fresh_days, stale_days) for branch in surveyed.branches), key=rank)
    if not any(branch.base or branch.nearest for branch in found):
        raise Unrelated(
            f"{joined.fork.git_dir}: {'no branch shares' if len(found) > 1 else f'{found[0].name} does not share'}"
            f" a commit with {joined.upstream.git_dir}",
            hint="check --fork and --llama-cpp: its files are not llama.cpp's either",
        )
    return Freshness(
        fork=str(joined.fork.git_dir),
        now=now.astimezone(UTC).isoformat(timespec="seconds"),
        newest=surveyed.newest,
        newest_days=max(_days(head, now), 0.0),
        mirror_build=max(joined.builds),
        branches=tuple(found),
        verdict=found[0].verdict,
        untrue_tags=(*surveyed.untrue_tags, *joined.untrue_versions()),
        seconds=round(time.monotonic() - started, 2),
    )


def _on(branch: Branch, now: datetime, head: datetime, fresh_days: float, stale_days: float) -> Branch:
    """The branch as of a day, with upstream's `head` of that day."""
    dates = [datetime.fromisoformat(own.date) for own in branch.own]

    def within(days: int) -> int:
        return sum(1 for date in dates if 0 <= (now - date).total_seconds() <= days * _DAY)

    activity = replace(branch.activity, days_30=within(30), days_90=within(90))
    base = branch.base or branch.nearest
    if base is None:
        return replace(branch, activity=activity)
    age = max(_days(datetime.fromisoformat(base.date), head), 0.0)
    verdict: Verdict = "fresh" if age < fresh_days else "stale" if age <= stale_days else "very stale"
    return replace(branch, age_days=age, verdict=verdict if branch.base else "unrelated", activity=activity)


def _days(before: datetime, after: datetime) -> float:
    return round((after - before).total_seconds() / _DAY, 2)


def rank(branch: Branch) -> tuple[bool, bool, bool, bool, float, bool, int, str]:
    """Sort key: related, about TurboQuant, with work of its own; then the freshest, the default one, the fullest."""
    return (
        *(
            branch.base is None,
            branch.base is None and branch.nearest is None,
            not branch.turbo,
            not branch.own,
            branch.age_days,
        ),
        *(not branch.default, -len(branch.own), branch.name),
    )
