"""The series compiled and run at points of history, and what it says beyond them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from toolchain import pipeline
from toolchain.contract import proving
from toolchain.contract.check import Checked
from toolchain.core.cachetypes.table import own
from toolchain.core.errors import SeriesDoesNotApply
from toolchain.core.run import Run
from toolchain.series.manifest import Proven, load_series
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
    assert "2 builds hold and behave" in as_text(found)
    failure = found.failure()
    assert isinstance(failure, SeriesDoesNotApply)
    assert re.search("fails at .*b9001", failure.message)


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
