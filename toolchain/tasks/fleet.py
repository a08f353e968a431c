"""`./inv fleet`: many Macs over SSH, in waves."""

from __future__ import annotations

from ..core.run import Run
from ..fleet import controller, survey
from ..fleet import report as reporting
from .command import Group

group = Group("fleet", default="status")

_ROLLOUT = "id of the rollout; empty: the newest one"


@group.task("workspace", "inventory", release="id of a release for all; empty: what their channel names")
def plan(run: Run, release: str = "") -> None:
    """What a rollout would change."""
    run.finish(survey.plan(run, release))


@group.task(
    "workspace",
    "inventory",
    release="id of a release for all; empty: what their channel names",
    abandon="give up an unfinished rollout, and begin another one",
)
def apply(run: Run, release: str = "", abandon: bool = False) -> None:
    """Roll out in waves, or go on with it."""
    run.finish(controller.apply(run, release, abandon=abandon))


@group.task("workspace", "inventory")
def status(run: Run) -> None:
    """What all hosts are; code 47 for drift."""
    run.finish(survey.status(run))


@group.task("workspace", "inventory", rollout=_ROLLOUT)
def rollback(run: Run, rollout: str = "") -> None:
    """Take back what a rollout changed."""
    run.finish(controller.rollback(run, rollout))


@group.task("workspace", rollout=_ROLLOUT, out="folder of report.html and report.json; empty: the rollout's own")
def report(run: Run, rollout: str = "", out: str = "") -> None:
    """What a rollout did."""
    journal = controller.find(run, rollout)
    found = reporting.of(journal)
    page = reporting.save(found, run.output(out, f"fleet/{journal.folder.name}"))
    run.console.note(f"report: {page}")
    run.console.result(found)
