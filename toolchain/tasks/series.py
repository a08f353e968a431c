"""`./inv series`: the patch series, checked, rendered, and held against upstream's history."""

from __future__ import annotations

from .. import pipeline
from ..contract import proving, recording
from ..core import extras
from ..core.run import Run
from ..series import drift as surveying
from ..series import drift_page, manifest
from .command import Group
from .flags import SOURCES, Names

group = Group("series", default="check")


@group.task(*SOURCES, behaviour="run llama.cpp's Metal host code, to see which kernels it selects for our types")
def check(run: Run, behaviour: bool = True) -> None:
    """Dry run: edits, contract, behaviour."""
    run.finish(pipeline.check_series(run, pipeline.prepare(run), behaviour=behaviour))


@group.task(*SOURCES)
def render(run: Run) -> None:
    """Render the series: a diff for each target."""
    run.finish(pipeline.render_series(run, pipeline.prepare(run)))


@group.task(*SOURCES)
def branch(run: Run) -> None:
    """Commit the series as one branch, in scratch."""
    found = pipeline.prepare(run)
    run.finish(pipeline.make_scratch(run, found, pipeline.render_series(run, found)))


@group.task(
    *SOURCES,
    since="oldest build of llama.cpp",
    until="newest build; empty: the newest in the repository",
    every="builds between two points; 0: about 75 points",
    candidates="also test Ollama's release candidates",
    run="also compile and run the series; takes minutes for each build; five builds unless --every is given, and three "
    "releases of Ollama that contain a llama.cpp",
    release="with --run: such a release to run on, in place of all others (repeatable, or with commas)",
    out="folder of drift.html, drift.png and drift.json; empty: in the workspace",
)
def drift(
    context: Run,
    since: str = surveying.SINCE,
    until: str = "",
    every: int = 0,
    candidates: bool = False,
    run: bool = False,
    release: Names = Names(),
    out: str = "",
) -> None:
    """The series on a range of upstream."""
    series = manifest.load_series(context)
    if run:
        context.finish(proving.prove(context, series, since, until, every, release))
        return
    extras.require("plots", "the drift picture")
    found = surveying.survey(context, series, since, until, every, candidates=candidates)
    page = drift_page.save(found, context.output(out, "drift"))
    context.console.note(f"report: {page}")
    context.finish(found)


@group.task(
    *SOURCES,
    tree="build, tag or commit to record on (repeatable, or with commas); empty: the first supported and the newest",
    release="release of Ollama that contains a llama.cpp, to record on as well (repeatable, or with commas)",
)
def contract(run: Run, tree: Names = Names(), release: Names = Names()) -> None:
    """Record what our sources use of llama.cpp."""
    run.finish(recording.record_contract(run, manifest.load_series(run), tree, release))


@group.task()
def seal(run: Run) -> None:
    """Renew the checksums of the series."""
    run.finish(manifest.Sealed(series_sha256=manifest.seal(manifest.root_of(run.config))))
