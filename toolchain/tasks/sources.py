"""`./inv sources`: the commits that a run works on."""

from __future__ import annotations

from .. import pipeline
from ..core.run import Run
from .command import Group
from .flags import SOURCES

group = Group("sources", default="prepare")


@group.task(*SOURCES)
def prepare(run: Run) -> None:
    """Find both commits, and resolve the pin."""
    run.finish(pipeline.prepare(run))
