"""Tasks outside of collections: all stages, the machine, and the toolkit itself."""

from __future__ import annotations

from pathlib import Path

from .. import deploy, pipeline, rehearsal, smoke
from ..core import config as configuration
from ..core.checkout import ROOT
from ..core.run import Run
from ..firstrun import engine as first_runs
from ..host import doctor as host
from ..series.manifest import load_series
from ..upstream import assessment
from ..upstream import watch as watching
from . import suite
from .command import Group
from .flags import SOURCES, Names

group = Group()


@group.task(keep="folder to rehearse in, kept afterwards; empty: a temporary one")
def rehearse(run: Run, keep: str = "") -> None:
    """All stages in miniature, with a rollback."""
    run.finish(rehearsal.rehearse(run.console, Path(keep) if keep else None))


@group.task(
    name="test",
    fast="leave out the tests that are marked slow",
    sweeps="all parameters of the tests that are marked sampled",
    args="further arguments for pytest, as one string, split as a shell does",
)
def run_tests(run: Run, fast: bool = False, sweeps: bool = False, args: str = "") -> None:
    """Run the test suite."""
    run.finish(suite.run(run.console, fast=fast, sweeps=sweeps, args=args))


@group.task()
def check(run: Run) -> None:
    """Whether this repository's files are sound."""
    run.finish(smoke.check(run.console, ROOT))


@group.task(
    *SOURCES,
    out="the archive to write: a name that ends with .tar.gz or .zip",
    only="areas to examine, separated by commas (repeatable); without it all of them",
    before_reboot="prepare the part that a reboot belongs to: leaves one job, and the record of it",
    after_reboot="examine what the reboot left of that job, and remove it",
)
def firstrun(
    run: Run,
    out: str = "firstrun.tar.gz",
    only: Names = Names(),
    before_reboot: bool = False,
    after_reboot: bool = False,
) -> None:
    """Whether a Mac is what the toolkit assumes."""
    found = first_runs.first_run(run, out, only, before_reboot=before_reboot, after_reboot=after_reboot)
    run.console.note(f"report: {Path(out).absolute()}")
    run.finish(found)


@group.task("workspace")
def doctor(run: Run) -> None:
    """Which requirements this machine meets."""
    run.finish(host.doctor(run.config))


@group.task(*SOURCES, "prefix", "port", "kv_cache_type")
def config(run: Run) -> None:
    """Every setting, and where its value came from."""
    run.finish(configuration.rows(deploy.settled(run.config)))


@group.task(*SOURCES, keep="do not store this look, so that the next one reports the same again")
def watch(run: Run, keep: bool = False) -> None:
    """What came upstream since the last look."""
    run.finish(watching.look(run, load_series(run), keep=keep))


@group.task(*SOURCES, "prefix", "port", "kv_cache_type")
def ship(run: Run) -> None:
    """From sources to a running service."""
    run.finish(pipeline.ship(run))


@group.task(
    *SOURCES,
    "fork",
    branch="branch of the fork; empty: the most promising one",
    now="date for ages, in ISO 8601; empty: today",
    platform="platform of the result, macos or linux; empty: this machine's",
    model="GGUF file, its URL, or a model in Ollama's store, to plan its context; empty: none",
    ram="GiB of a Mac to plan for; 0: this machine",
    out="folder of assessment.html and assessment.json; empty: in the workspace",
)
def assess(
    run: Run,
    branch: str = "",
    now: str = "",
    platform: str = "",
    model: str = "",
    ram: float = 0.0,
    out: str = "",
) -> None:
    """Decide which path leads to TurboQuant today."""
    found = assessment.assess(run, branch, now, platform, model, ram)
    page = assessment.save(found, run.output(out, "assessment"))
    run.console.note(f"report: {page}")
    run.finish(found)
