"""`./inv verify`: the proof that a release does what was configured."""

from __future__ import annotations

from .. import pipeline
from ..build import find_release
from ..core.run import Run
from .command import Group

group = Group("verify", default="release")


@group.task("workspace", name="release", release="id or directory of a release; empty: the newest one built")
def verify(run: Run, release: str = "") -> None:
    """Prove what a release does."""
    run.finish(pipeline.verify(run, find_release(run, release)))
