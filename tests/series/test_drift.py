"""Drift over real histories: what holds where, the commit that made the difference; and it agrees with the dry run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.contract.check import check
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.errors import ConfigError, PinMissing, UnknownRevision
from toolchain.core.run import Run
from toolchain.series import drift, drift_page, manifest, outcomes
from toolchain.text import as_text

from .conftest import EDITS, MAIN_GO, TABLE_C, TYPES_H, SeriesMaker, Upstream

RENAMED = TABLE_C.replace("int size_of(enum kind kind)", "int bytes_of(enum kind kind)")


@pytest.fixture
def run(upstream: Upstream, tmp_path: Path) -> Run:
    flags = {
        "sources.llama_cpp": str(upstream.root / "llama.cpp"),
        "sources.ollama": str(upstream.root / "ollama"),
        "workspace": str(tmp_path / "workspace"),
    }
    return Run(load(flags=flags), Console(json=True))


def survey(run: Run, root: Path, since: str = "b1", every: int = 1, **more: bool) -> drift.Drift:
    return drift.survey(run, manifest.load(root), since, "", every, **more)


def release(upstream: Upstream, tag: str, text: str = MAIN_GO) -> str:
    pinned = {"LLAMA_CPP_VERSION": "b2\n", "llama/compat/readme": f"{tag}\n", "main.go": text}
    commit = upstream.commit("ollama", dict(pinned), tag)
    upstream.git("ollama", "tag", tag)
    return commit


def test_where_it_holds_and_by_which_commit(upstream: Upstream, make_series: SeriesMaker, run: Run) -> None:
    root = make_series()
    upstream.commit("llama.cpp", {"notes": "harmless\n"}, "2: harmless")
    broken = upstream.commit("llama.cpp", {"table.c": RENAMED}, "3: rename")
    upstream.commit("llama.cpp", {"table.c": RENAMED + "int more;\n"}, "4: harmless")
    mended = upstream.commit("llama.cpp", {"table.c": TABLE_C}, "5: back again")
    upstream.commit("llama.cpp", {"table.c": None, "lib/table.c": TABLE_C}, "6: move")
    found = survey(run, root).surveys[0]
    assert [(point.name, point.failing) for point in found.points] == [
        ("b1", ()),
        ("b2", ()),
        ("b3", ("types/size",)),
        ("b4", ("types/size",)),
        ("b5", ()),
        ("b6", ("types/size", "types/traits")),
    ]
    assert found.held == 3
    assert {edit.name: (edit.held, edit.points) for edit in found.edits} == {
        "types/count": (6, 6),
        "types/ids": (6, 6),
        "types/size": (3, 6),
        "types/traits": (5, 6),
    }
    assert [(turn.edit, turn.holds, turn.commit) for turn in found.turns][:2] == [
        ("types/size", False, broken),
        ("types/size", True, mended),
    ]
    assert [(turn.edit, turn.holds, turn.subject) for turn in found.turns[2:]] == [
        ("types/size", False, "6: move"),
        ("types/traits", False, "6: move"),
    ]
    checked = check(manifest.load(root), upstream.sources(), Console())
    assert sorted(edit.name for edit in checked.edits if edit.status != "applies") == sorted(found.points[-1].failing)


def test_the_commit_between_two_points_is_found(upstream: Upstream, make_series: SeriesMaker, run: Run) -> None:
    for number in range(9):
        upstream.commit("llama.cpp", {"table.c": f"{TABLE_C}// {number}\n"}, "harmless")
    broken = upstream.commit("llama.cpp", {"table.c": RENAMED}, "rename")
    for number in range(9):
        upstream.commit("llama.cpp", {"table.c": f"{RENAMED}// {number}\n"}, "harmless")
    found = survey(run, make_series(), every=25).surveys[0]
    assert [point.name for point in found.points] == ["b1", "b20"]
    (turn,) = found.turns
    assert (turn.edit, turn.holds, turn.commit, turn.point) == ("types/size", False, broken, "b20")
    assert "size_of" in turn.reason
    assert f"broken by {broken[:12]}" in as_text(drift.Drift(series_sha256="", surveys=(found,), judged=0, seconds=0))


@pytest.mark.slow
def test_only_what_is_new_is_judged(upstream: Upstream, make_series: SeriesMaker, run: Run) -> None:
    root = make_series()
    for number in range(8):
        upstream.commit("llama.cpp", {"table.c": f"{TABLE_C}// {number}\n"}, "harmless")
    release(upstream, "v0.30.0")
    first = survey(run, root)
    assert first.judged == 9 + 1 + 1, "nine contents of table.c, by other processes, one of types.h, one of main.go"
    again = survey(run, root)
    assert (again.judged, again.surveys) == (0, first.surveys)
    upstream.commit("llama.cpp", {"table.c": RENAMED}, "rename")
    assert survey(run, root).judged == 1
    kept = run.workspace / "drift" / "judged.json"
    kept.write_text(kept.read_text()[:100])
    assert survey(run, root).judged == 12
    other = make_series([*EDITS[:3], {**EDITS[3], "anchor": "default:"}], name="other")
    assert survey(run, other).judged == 10, "another anchor in table.c; the other files' edits are as they were"


def test_releases_of_the_pinned_era(upstream: Upstream, make_series: SeriesMaker, run: Run) -> None:
    upstream.commit("llama.cpp", {"notes": "b2\n"}, "2")
    upstream.git("ollama", "tag", "v0.29.0")
    release(upstream, "v0.30.0")
    release(upstream, "v0.31.0-rc1", MAIN_GO.replace("start(kind)", "begin(kind)"))
    broken = release(upstream, "v0.31.0", MAIN_GO.replace("start(kind)", "begin(kind)") + "\n")
    upstream.git("ollama", "tag", "nightly")
    stable = survey(run, make_series()).surveys[1]
    assert [(point.name, point.holds) for point in stable.points] == [("v0.30.0", True), ("v0.31.0", False)]
    assert stable.points[1].commit == broken
    assert [turn.subject for turn in stable.turns] == ["v0.31.0-rc1"]
    found = survey(run, make_series(name="again"), candidates=True).surveys[1]
    assert [point.name for point in found.points] == ["v0.30.0", "v0.31.0-rc1", "v0.31.0"]


def test_trees_that_no_part_serves(upstream: Upstream, make_series: SeriesMaker, run: Run) -> None:
    upstream.commit("llama.cpp", {"types.h": TYPES_H.replace("KIND_COUNT", "KIND_LAST")}, "the fact is gone")
    upstream.commit("llama.cpp", {"types.h": TYPES_H, "src/new.c": "int theirs;\n"}, "a file of our name")
    found = survey(run, make_series()).surveys[0]
    assert [point.holds for point in found.points] == [True, False, False]
    assert "next_id" in found.points[1].reason
    assert found.points[2].failing == ("files/src/new.c",)
    text = as_text(drift.Drift(series_sha256="", surveys=(found,), judged=0, seconds=0))
    assert "1 points are not supported, b2 to b2" in text


def test_edits_that_want_the_same_place(upstream: Upstream, make_series: SeriesMaker, run: Run) -> None:
    twin = {**EDITS[1], "name": "twin", "insert": "KIND_COUNT = 9"}
    found = survey(run, make_series([*EDITS, twin])).surveys[0]
    assert found.points[0].failing == ("types/count", "types/ids", "types/twin")


@pytest.mark.parametrize(
    ("since", "error", "words"),
    [
        ("b99", UnknownRevision, "b99"),
        ("side", ConfigError, "not a commit of llama.cpp's mainline"),
        ("b3", ConfigError, "no build between b3 and b2"),
    ],
)
def test_ranges_that_are_none(
    upstream: Upstream, make_series: SeriesMaker, run: Run, since: str, error: type[Exception], words: str
) -> None:
    upstream.commit("llama.cpp", {"notes": "2\n"}, "2")
    upstream.git("llama.cpp", "checkout", "-q", "-b", "side")
    upstream.commit("llama.cpp", {"notes": "side\n"}, "aside")
    upstream.git("llama.cpp", "checkout", "-q", "main")
    upstream.commit("llama.cpp", {"notes": "3\n"}, "3")
    with pytest.raises(error, match=words):
        drift.survey(run, manifest.load(make_series()), since, "b2" if since == "b3" else "", 1)


def test_histories_that_cannot_be_counted(upstream: Upstream, make_series: SeriesMaker, run: Run) -> None:
    upstream.commit("llama.cpp", {"notes": "2\n"}, "2")
    series = manifest.load(make_series())
    origin = f"file://{upstream.root / 'llama.cpp'}"
    upstream.git(".", "clone", "-q", "--bare", "--depth=1", origin, "shallow.git")
    upstream.git(".", "init", "-q", "--bare", "empty.git")
    for name, words in (("shallow.git", "shallow clone"), ("empty.git", "no commits")):
        other = replace(run.config, sources=replace(run.config.sources, llama_cpp=str(upstream.root / name)))
        with pytest.raises(PinMissing, match=words):
            drift.survey(Run(other, run.console), series, "b1", "", 1)


def test_the_page_and_the_picture(upstream: Upstream, make_series: SeriesMaker, run: Run, tmp_path: Path) -> None:
    upstream.commit("llama.cpp", {"table.c": RENAMED}, "rename <size_of>")
    release(upstream, "v0.30.0")
    page = drift_page.save(survey(run, make_series()), tmp_path / "out")
    assert page.read_text().count("types/size") == 2
    assert "rename &lt;size_of&gt;" in page.read_text()
    assert (tmp_path / "out/drift.png").read_bytes().startswith(b"\x89PNG")
    from toolchain.core.records import read

    assert read(tmp_path / "out/drift.json", drift.Drift).surveys[0].held == 1


@given(st.integers(0, 40), st.integers(0, 40))
def test_bisection(count: int, turn: int) -> None:
    commits = [str(number) for number in range(count)]
    asked: list[str] = []

    def changed(commit: str) -> bool:
        asked.append(commit)
        return int(commit) >= turn

    assert drift.first_changed(commits, changed) == (str(turn) if turn < count else "")
    assert len(asked) <= count.bit_length() + 1


def test_a_state_holds_without_a_change() -> None:
    held = {
        status: outcomes.EditState(name="", file="", status=status).holds
        for status in ("applies", "upstreamed", "skipped", "broken")
    }
    assert held == {"applies": True, "upstreamed": True, "skipped": True, "broken": False}


def test_versions_name_builds(upstream: Upstream, make_series: SeriesMaker, run: Run) -> None:
    root = make_series()
    upstream.commit("llama.cpp", {"notes": "2\n"}, "2")
    upstream.git("llama.cpp", "tag", "-a", "v0.3.0", "-m", "Release")
    upstream.commit("llama.cpp", {"notes": "3\n"}, "3")
    pinned = {"LLAMA_CPP_VERSION": "v0.3.0\n", "llama/compat/readme": "x\n"}
    upstream.commit("ollama", dict(pinned), "v0.31.0")
    upstream.git("ollama", "tag", "v0.31.0")
    llama_cpp, ollama = survey(run, root, "release-v0.3.0").surveys
    assert [point.name for point in llama_cpp.points] == ["b2", "b3"]
    assert [(point.name, point.holds) for point in ollama.points] == [("v0.31.0", True)]
    with pytest.raises(UnknownRevision, match=r"v0\.4\.0"):
        survey(run, root, "v0.4.0")
