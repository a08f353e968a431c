"""`series.drift --run`: on selected builds of llama.cpp, and on releases of Ollama that contain a llama.cpp, whether
the series applies and whether it works.

For each: edits, contract and behaviour as in `series.check`; a compile, syntax only, of every C and C++ file that
we add or edit; `metal.check`; and a short `metal.run`. The `proven` range of series.yaml is based on this.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..build.tools import compilers
from ..core import temporary
from ..core.config import Config
from ..core.console import Console
from ..core.errors import BuildFailed, SeriesDoesNotApply, ToolchainError
from ..core.process import run as run_program
from ..core.records import record
from ..core.run import Run
from ..metal import inspection, runs
from ..metal.attention import Attention
from ..series import drift
from ..series.facts import read_facts
from ..series.manifest import Series
from ..series.patched import INCLUDED, Patched, included, patch, reader, write_out
from ..series.render import contained
from ..series.tree import Tree
from ..sources import open_origin
from . import behaviour, holding
from .flags import CPP, defined
from .operations import QUERIES

_SCRATCH = re.compile(r"\S*/turboquant-prove-\w+/")
_SHOWN = 400
"""maximum length of a stage's message on the terminal; the record has all of it"""
POINTS, RELEASES = 5, 3
"""number of builds by default, and of releases that contain a llama.cpp"""


@record
class ProofStage:
    """One stage at one build; `said` is what failed, or how much was done."""

    name: str
    ok: bool
    said: str
    seconds: float


@record
class ProvenBuild:
    """One build with the series applied, or the llama.cpp in a release of Ollama."""

    name: str
    commit: str
    date: str
    stages: tuple[ProofStage, ...]

    @property
    def ok(self) -> bool:
        """Whether all stages passed."""
        return all(stage.ok for stage in self.stages)


@record
class Proving:
    """All builds, oldest first, then the releases."""

    series_sha256: str
    points: tuple[ProvenBuild, ...]
    seconds: float

    def failure(self) -> SeriesDoesNotApply | None:
        """The error of a run in which a build failed."""
        failed = [point.name for point in self.points if not point.ok]
        if not failed:
            return None
        return SeriesDoesNotApply(f"the series fails at {', '.join(failed)}", hint="what failed is listed above")


def prove(run: Run, series: Series, since: str, until: str, every: int, releases: Sequence[str] = ()) -> Proving:
    """Run the series on builds from `since` to `until`, one for `every` builds (0: five, spread evenly), and on three
    releases of Ollama that contain a llama.cpp. With `releases` on these alone.

    Failures are recorded, not raised. Raises `ConfigError` for an empty range, and for a release that contains none.
    """
    settings, console = run.config.sources, run.console
    started = time.monotonic()
    llama_cpp = open_origin("llama.cpp", settings.llama_cpp, run.config, console)
    with llama_cpp as repository, open_origin("ollama", settings.ollama, run.config, console) as ollama:
        trees = {}
        if not releases:
            for build, commit in drift.spread(repository, since, until, every, POINTS).items():
                trees[f"b{build}"] = Tree(target="llama.cpp", repository=repository, commit=commit, version=str(build))
        for name in releases or drift.evenly(drift.containing(series, ollama), RELEASES):
            trees[name] = contained(ollama, name)
        points = []
        for name, tree in trees.items():
            with console.step(f"run the series on {name}"):
                stages = tuple(_stages(series, tree, run.config, run.workspace, console))
            date = tree.repository.commit(tree.commit).date[:10]
            points.append(ProvenBuild(name=name, commit=tree.commit, date=date, stages=stages))
            console.note("\n".join(point_lines(points[-1])))
    seconds = round(time.monotonic() - started, 1)
    return Proving(series_sha256=series.sha256, points=tuple(points), seconds=seconds)


def point_lines(point: ProvenBuild) -> list[str]:
    lines = [f"  {point.name} {point.date} {'holds' if point.ok else 'FAILS'}"]
    return lines + [
        f"    {'ok' if stage.ok else 'FAILS':<6} {stage.name:<12} {stage.seconds:>6.1f} s  {_shortened(stage.said)}"
        for stage in point.stages
    ]


def _shortened(said: str) -> str:
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."


def _stages(series: Series, tree: Tree, config: Config, workspace: Path, console: Console) -> list[ProofStage]:
    stages: list[ProofStage] = []

    def stage(name: str, work: Callable[[], tuple[bool, str]]) -> bool:
        begun = time.monotonic()
        try:
            ok, said = work()
        except ToolchainError as error:
            ok, said = False, error.message
        said = _SCRATCH.sub("", said)
        stages.append(ProofStage(name=name, ok=ok, said=said, seconds=round(time.monotonic() - begun, 1)))
        return ok

    texts: list[Patched] = []

    def edits() -> tuple[bool, str]:
        texts.append(patch(series, tree, read_facts(series, (tree,))))
        return True, f"{len(texts[0].files)} files"

    if not stage("edits", edits):
        return stages
    (text,) = texts
    stage("contract", lambda: _contract(series, tree, text))
    stage("behaviour", lambda: _behaviour(series, tree, text, config, workspace))
    with temporary.folder("prove") as made:
        root = made.resolve()
        sources = [path for path in text.own if path.endswith((".c", ".cpp"))]
        present = frozenset(tree.paths()) | frozenset(text.files)
        wanted = [*sources, *behaviour.host_files(tree, text)]
        write_out(included(reader(tree, text), present, wanted), root)
        stage("compile", lambda: _compile(root, sources, text, config, workspace))
        stage("metal.check", lambda: _inspect(root))
        stage("metal.run", lambda: _run(root, series, config, workspace, console))
    return stages


def _contract(series: Series, tree: Tree, text: Patched) -> tuple[bool, str]:
    words = text.words()
    asked = holding.asked(series.contract, words, tree.era)
    broken = holding.hold(asked, tree, words, [path for path in text.own if path not in text.added])
    return not broken, "; ".join(map(str, broken)) or f"{len(asked)} symbols"


def _behaviour(series: Series, tree: Tree, text: Patched, config: Config, workspace: Path) -> tuple[bool, str]:
    found = behaviour.behave(series, tree, text, config, workspace)
    return not found.wrong, "; ".join(found.wrong) or found.skipped or f"{found.operations} operations"


def _compile(root: Path, sources: Sequence[str], text: Patched, config: Config, workspace: Path) -> tuple[bool, str]:
    cc, cxx = (tool.require() for tool in compilers(config.build, workspace)[1:])
    folders = [word for folder in INCLUDED for word in ("-I", str(root / folder))]

    def compile_one(path: str) -> str:
        plus = path.endswith(".cpp")
        argv = [cxx.path, *CPP] if plus else [cc.path, "-std=gnu11"]
        argv += ["-fsyntax-only", "-w"]
        try:
            run_program([*argv, *defined(text), *folders, str(root / path)], failure=BuildFailed, what=path)
        except BuildFailed as error:
            return error.message.replace(f"{root}/", "")
        return ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = list(filter(None, pool.map(compile_one, sources)))
    return not wrong, "; ".join(wrong) or f"{len(sources)} files"


def _inspect(root: Path) -> tuple[bool, str]:
    found = inspection.inspect(root)
    names = [*(f"no kernel {name}" for name in found.absent), *(f"nothing uses {name}" for name in found.unasked)]
    return found.ok, "; ".join(names) or f"{sum(found.kernels.values())} kernels"


def pairs(own: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of types that include each of our `own`: the first with q8_0, the second with f16."""
    first, *others = own
    second = [("f16", name) for name in others[:1]]
    return (("q8_0", first), (first, "q8_0"), *second, (first, first), *((name, name) for name in others[1:]))


def short_cases(own: Sequence[str]) -> tuple[Attention, ...]:
    """Pairs of types at the numbers of queries where upstream switches kernels."""
    return tuple(
        Attention(k=k, v=v, dk=64, dv=64, heads=2, positions=queries + 33, queries=queries, seed=number)
        for number, (k, v) in enumerate(pairs(own))
        for queries in QUERIES
    )


def _run(root: Path, series: Series, config: Config, workspace: Path, console: Console) -> tuple[bool, str]:
    ran = runs.run_tree(
        root, series, config, workspace, console, only=short_cases([kind.name for kind in series.types])
    )
    wrong = [f"{case.kernel} {case.type}: {', '.join(case.wrong)}" for case in ran.cases if not case.ok]
    return not ran.failed, "; ".join(wrong[:4]) or f"{ran.passed} cases"
