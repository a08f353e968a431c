"""The dry run: statuses, candidates, and the commit that broke an edit."""

from __future__ import annotations

from toolchain.contract.check import check
from toolchain.core.console import Console
from toolchain.series import manifest
from toolchain.text import as_text

from .conftest import TABLE_C, TYPES_H, SeriesMaker, Upstream


def test_all_apply(upstream: Upstream, make_series: SeriesMaker) -> None:
    checked = check(manifest.load(make_series()), upstream.sources(), Console())
    assert checked.ok
    assert {edit.name: edit.line for edit in checked.edits}["types/size"] == 8


def test_a_moved_anchor_has_candidates_and_a_culprit(upstream: Upstream, make_series: SeriesMaker) -> None:
    upstream.commit("llama.cpp", {"table.c": TABLE_C + "\n// drift\n"}, "harmless")
    moved = TABLE_C.replace("int size_of(enum kind kind)", "int bytes_of(enum kind kind)")
    culprit = upstream.commit("llama.cpp", {"table.c": moved}, "rename size_of")
    upstream.commit("llama.cpp", {"table.c": moved + "\nint more;\n"}, "harmless again")
    checked = check(manifest.load(make_series()), upstream.sources(), Console())
    (edit,) = [edit for edit in checked.edits if edit.status != "applies"]
    assert not checked.ok
    assert (edit.name, edit.status) == ("types/size", "moved")
    assert edit.candidates == ("table.c:8 (int bytes_of(enum kind kind))",)
    assert edit.culprit.startswith(culprit[:12])
    assert "rename size_of" in as_text(checked)


def test_a_file_that_moved(upstream: Upstream, make_series: SeriesMaker) -> None:
    culprit = upstream.commit("llama.cpp", {"table.c": None, "lib/table.c": TABLE_C}, "move to lib")
    checked = check(manifest.load(make_series()), upstream.sources(), Console())
    by_name = {edit.name: edit for edit in checked.edits}
    assert by_name["types/traits"].status == "moved"
    assert by_name["types/traits"].candidates[0].startswith("lib/table.c:2")
    assert by_name["types/traits"].culprit.startswith(culprit[:12])


def test_a_place_that_is_gone_is_broken(upstream: Upstream, make_series: SeriesMaker) -> None:
    gone = TABLE_C[: TABLE_C.index("int size_of")]
    upstream.commit("llama.cpp", {"table.c": gone}, "drop it")
    checked = check(manifest.load(make_series()), upstream.sources(), Console())
    assert {edit.name: edit.status for edit in checked.edits}["types/size"] == "broken"


def test_an_anchor_that_matches_twice_is_broken(upstream: Upstream, make_series: SeriesMaker) -> None:
    twice = TABLE_C.replace("case KIND_A: return 1;", "case KIND_A: case KIND_A: return 1;")
    culprit = upstream.commit("llama.cpp", {"table.c": twice}, "twice")
    checked = check(manifest.load(make_series()), upstream.sources(), Console())
    edit = {edit.name: edit for edit in checked.edits}["types/size"]
    assert (edit.status, edit.culprit[:12]) == ("broken", culprit[:12])
    assert "occurs 2 times" in edit.reason


def test_a_fact_that_is_gone(upstream: Upstream, make_series: SeriesMaker) -> None:
    upstream.commit("llama.cpp", {"types.h": TYPES_H.replace("KIND_COUNT", "KIND_LAST")}, "rename")
    checked = check(manifest.load(make_series()), upstream.sources(), Console())
    assert not checked.ok
    assert "fact next_id" in checked.reason


def test_a_collision_shows_in_the_dry_run(upstream: Upstream, make_series: SeriesMaker) -> None:
    upstream.commit("llama.cpp", {"src/new.c": "theirs"}, "collision")
    checked = check(manifest.load(make_series()), upstream.sources(), Console())
    assert not checked.ok
    assert "src/new.c" in checked.reason
