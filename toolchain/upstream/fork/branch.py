"""What is found out about one branch of a fork."""

from __future__ import annotations

from typing import Literal

from ...core.records import record
from .areas import AreaChange

Verdict = Literal["fresh", "stale", "very stale", "unrelated"]


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
class Nearest:
    """The commit of upstream's whose files differ least from those of a branch without a common ancestor."""

    commit: str
    date: str
    build: int
    equal: int
    """files that are the same in both"""
    files: int
    """files of the branch"""


@record
class Branch:
    """One branch against upstream. Without a common ancestor, all but name, tip, verdict and `nearest` are empty."""

    name: str
    tip: str
    tip_date: str
    default: bool = False
    """whether the fork's HEAD names it"""
    verdict: Verdict
    merge_base: Base | None = None
    base: Base | None = None
    nearest: Nearest | None = None
    """for a branch without a common ancestor, as of a squashed history; None: its files are not upstream's either"""
    age_days: float = 0.0
    """days from `base`, or else `nearest`, to upstream's newest commit"""
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
