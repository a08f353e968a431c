"""`./inv build`: release directories."""

from __future__ import annotations

from .. import build as building
from .. import pipeline
from ..core.run import Run
from ..publishing import sealing
from .command import Group
from .flags import SOURCES, Names

group = Group("build", default="release")


@group.task(
    *SOURCES,
    stock="build upstream without the series",
    targets="further programs of llama.cpp to build, such as llama-bench,llama-perplexity",
)
def release(run: Run, stock: bool = False, targets: Names = Names()) -> None:
    """Build a release directory."""
    found = pipeline.prepare(run)
    rendered = pipeline.stock(found) if stock else pipeline.render_series(run, found)
    built = pipeline.build(run, found, rendered, targets)
    run.console.note(f"release: {pipeline.directory(run, built)}")
    run.finish(built)


@group.task("workspace", release="id or directory of the release that was signed; empty: the newest one built")
def seal(run: Run, release: str = "") -> None:
    """Make a release of one signed outside."""
    run.finish(sealing.seal(run, building.find_release(run, release)))


@group.task("workspace", release="id or directory of a release; empty: the newest one built")
def check(run: Run, release: str = "") -> None:
    """Check a release against its manifest."""
    run.finish(building.check(building.find_release(run, release)))
