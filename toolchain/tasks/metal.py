"""`./inv metal`: Metal kernels, compiled, run, audited and counted without a GPU."""

from __future__ import annotations

from pathlib import Path

from .. import pipeline
from ..core.run import Run
from ..metal import audit as auditing
from ..metal import inspection, roofline, runs
from .command import Group
from .flags import SOURCES, Names, Numbers

group = Group("metal", default="check")

_PATCHED = "patched llama.cpp tree; empty: the scratch tree with the series applied"


@group.task(*SOURCES, tree="llama.cpp tree to check; empty: the scratch tree with the series applied")
def check(run: Run, tree: str = "") -> None:
    """Metal kernels compile and fit the host code."""
    run.finish(inspection.inspect(Path(tree) if tree else pipeline.patched_llama_cpp(run)))


@group.task(
    *SOURCES,
    name="run",
    tree=_PATCHED,
    full="every pair of types on every head size",
    program="llama.cpp's test-backend-ops, for its cases on a GPU; empty: on a Mac, it is built of the tree",
)
def run_kernels(run: Run, tree: str = "", full: bool = False, program: str = "") -> None:
    """Run Metal kernels against the reference."""
    folder, tested = (Path(path) if path else None for path in (tree, program))
    run.finish(runs.choose(run, folder, tested, patched=pipeline.patched_llama_cpp, full=full))


@group.task(*SOURCES, "fork", branch="branch to audit (repeatable); empty: every one", tree="audit this tree instead")
def audit(run: Run, branch: Names = Names(), tree: str = "") -> None:
    """Which cache types have which Metal kernels."""
    run.finish(auditing.choose(run, branch, Path(tree) if tree else None))


@group.task(
    *SOURCES,
    tree=_PATCHED,
    head="head size of K and V",
    depth="positions for one query (repeatable)",
    prompt="positions for 32 and 512 queries (repeatable)",
)
def cost(run: Run, tree: str = "", head: int = 128, depth: Numbers = Numbers(), prompt: Numbers = Numbers()) -> None:
    """What attention costs on a GPU, counted."""
    where = Path(tree) if tree else pipeline.patched_llama_cpp(run)
    run.finish(roofline.measure(run, where, head, depth, prompt))
