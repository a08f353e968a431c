"""The series compiled and run at points of history, and what it says beyond them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sources.gitrepo import commit, git
from toolchain import pipeline
from toolchain.contract import proving
from toolchain.contract.check import Checked
from toolchain.core.cachetypes.table import own
from toolchain.core.errors import ConfigError, SeriesDoesNotApply, UnknownRevision
from toolchain.core.run import Run
from toolchain.rehearsal import miniature
from toolchain.series import drift
from toolchain.series.manifest import Proven, Series, load_series
from toolchain.series.tree import Tree
from toolchain.text import as_text

from .conftest import Edits
from .test_behaviour import BY_K_ALONE, CASE, OPS

pytestmark = pytest.mark.slow

STAGES = ["edits", "contract", "behaviour", "compile", "metal.check", "metal.run"]


def test_points_of_history(run: Run, change: Callable[[Edits], str]) -> None:
    change({OPS: (CASE, BY_K_ALONE)})
    found = proving.prove(run, load_series(run), "b9000", "", 1)
    good, bad = found.points
    assert (good.name, bad.name) == ("b9000", "b9001")
    assert [stage.name for stage in good.stages] == STAGES
    # kernels of the miniature are named in ways that metal.check does not read
    assert {stage.name for stage in good.stages if not stage.ok} <= {"metal.check"}, as_text(found)
    assert good.stages[-1].said == f"{len(proving.pairs([kind.name for kind in own()])) * 5} cases"
    failed = {stage.name: stage.said for stage in bad.stages if not stage.ok}
    assert set(failed) - {"metal.check"} == {"behaviour", "metal.run"}
    assert "on the type of K only" in failed["behaviour"]
    assert "2 points passed" in as_text(found)
    failure = found.failure()
    assert isinstance(failure, SeriesDoesNotApply)
    assert re.search("fails at .*b9001", failure.message)


VENDORED = {
    "Makefile.sync": "FETCH_HEAD=b1\n",
    "llama/llama.cpp/include/llama.h": "",
    "ml/backend/ggml/ggml/include/ggml.h": "",
}


@pytest.fixture
def ollama(run: Run, upstream: miniature.Miniature) -> Path:
    """Releases that contain a llama.cpp beneath the miniature's own, which pins one; two before the series begins."""
    where = upstream.ollama
    pinning = git(where, "rev-parse", "HEAD")
    git(where, "checkout", "--quiet", "--orphan", "vendored")
    git(where, "rm", "-r", "--quiet", "-f", ".")
    for tag in ("v0.13.5", "v0.14.0", "v0.15.0", "v0.16.0", "v0.17.0", "v0.17.1", "v0.18.0-rc0"):
        commit(where, {**VENDORED, "version": tag})
        git(where, "tag", tag)
    git(where, "checkout", "--quiet", pinning)
    return where


def test_releases_that_contain_a_llama_cpp(run: Run, ollama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tree] = []

    def stages(series: Series, tree: Tree, *_: object) -> list[proving.ProofStage]:
        seen.append(tree)
        return [proving.ProofStage(name="edits", ok=tree.version != "0.17.0", said="", seconds=0)]

    monkeypatch.setattr(proving, "_stages", stages)
    found = proving.prove(run, load_series(run), "b9000", "", 1)
    assert [point.name for point in found.points] == ["b9000", "v0.15.0", "v0.17.0", "v0.17.1"]
    assert [(tree.target, tree.era, tree.version) for tree in seen] == [
        ("llama.cpp", "pinned", "9000"),
        ("llama.cpp", "vendored", "0.15.0"),
        ("llama.cpp", "vendored", "0.17.0"),
        ("llama.cpp", "vendored", "0.17.1"),
    ]
    assert seen[-1].paths("include") == ["include/llama.h"], "by llama.cpp's own names"
    assert found.points[-1].commit == git(ollama, "rev-parse", "v0.17.1")
    named = proving.prove(run, load_series(run), "b9000", "", 1, ["v0.17.0"])
    assert [(point.name, point.ok) for point in named.points] == [("v0.17.0", False)]
    assert "0 of 1 points passed" in as_text(named)
    assert isinstance(named.failure(), SeriesDoesNotApply)
    with pytest.raises(ConfigError, match="and contains none"):
        proving.prove(run, load_series(run), "b9000", "", 1, ["HEAD"])
    with pytest.raises(UnknownRevision, match=r"v9\.9"):
        proving.prove(run, load_series(run), "b9000", "", 1, ["v9.9"])


@pytest.mark.parametrize(
    ("found", "count", "some"),
    [("abcdefg", 3, "adg"), ("abcdef", 3, "acf"), ("ab", 3, "ab"), ("", 3, ""), ("abc", 3, "abc")],
)
def test_evenly(found: str, count: int, some: str) -> None:
    assert "".join(drift.evenly(found, count)) == some


def test_an_edit_that_does_not_hold_ends_a_point(run: Run, change: Callable[[Edits], str]) -> None:
    change({"ggml/include/ggml.h": ("enum ggml_type {", "enum ggml_kind {")})
    found = proving.prove(run, load_series(run), "b9001", "", 1)
    (point,) = found.points
    assert [(stage.name, stage.ok) for stage in point.stages] == [("edits", False)]


@pytest.mark.parametrize(
    ("builds", "build", "beyond"),
    [(">=5,<=9", "9", False), (">=5,<=9", "10", True), (">=5,<=9", "4", False), (">=5", "99", False)],
)
def test_beyond_what_was_proven(builds: str, build: str, beyond: bool) -> None:
    said = Proven(builds=builds, newest="abc, 1 May 2026").beyond(build)
    assert said == (f"b{build} is newer than proven: {builds} (abc, 1 May 2026)" if beyond else "")


def test_check_says_so_and_goes_on(run: Run) -> None:
    checked: Checked = pipeline.check_series(run, pipeline.prepare(run), behaviour=False)
    assert checked.beyond == ""
    newer = replace(checked, beyond="b9000 is newer than proven: <=5 (abc)")
    assert "b9000 is newer than proven" in as_text(newer)
    pipeline.require(newer)
