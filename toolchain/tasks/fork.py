"""`./inv fork`: a fork of llama.cpp beside upstream."""

from __future__ import annotations

from .. import pipeline
from ..core.run import Run
from ..upstream.fork import inquiry
from .command import Group
from .flags import SOURCES, Names

group = Group("fork", default="freshness")

_BRANCH = "branch of the fork (repeatable, or with commas); empty: all"
_NOW = "date for ages, in ISO 8601; empty: today"


@group.task("fork", "llama_cpp", "workspace", branch=_BRANCH, now=_NOW)
def freshness(run: Run, branch: Names = Names(), now: str = "") -> None:
    """How old a fork is, and its own work."""
    with inquiry.joined(run) as both:
        found = inquiry.freshness(run, both, branch, inquiry.moment(now))
    run.finish(found)


@group.task("fork", *SOURCES, branch="branch of the fork; empty: the most promising one", now=_NOW)
def conflicts(run: Run, branch: str = "", now: str = "") -> None:
    """Merge and cherry-pick a fork, in memory."""
    run.finish(inquiry.onto_the_pin(run, pipeline.prepare(run), branch, now))


@group.task("fork", "llama_cpp", "workspace", branch=_BRANCH)
def metal(run: Run, branch: Names = Names()) -> None:
    """Metal kernels by name, on every branch."""
    with inquiry.joined(run) as both:
        found = inquiry.audit(run, both, branch)
    run.finish(found)
