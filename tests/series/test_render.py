"""Rendering: one diff per target, the same bytes every time, and every failure by its name."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from toolchain.core import bounds
from toolchain.core.errors import AnchorAmbiguous, AnchorMissing, ChecksumMismatch, PatchFailed, SeriesError
from toolchain.core.records import sha256_file
from toolchain.series import manifest
from toolchain.series.render import COMPAT_PATCH, ollama_version, render

from .conftest import EDITS, TABLE_C, TYPES_H, SeriesMaker, Upstream


def edited(**changes: Any) -> list[dict[str, Any]]:
    """EDITS with the first one changed."""
    return [{**EDITS[0], **changes}, *EDITS[1:]]


def test_the_diffs_apply_and_give_what_the_manifest_states(
    upstream: Upstream, make_series: SeriesMaker, tmp_path: Path
) -> None:
    rendered = render(manifest.load(make_series()), upstream.sources())
    by_target = {target.target: target for target in rendered.targets}
    for name, target in by_target.items():
        patch = tmp_path / f"{name}.patch"
        patch.write_text(target.diff)
        upstream.git(name, "apply", "--index", str(patch))
        for file in target.files:
            assert sha256_file(upstream.root / name / file.path) == file.rendered
    assert (upstream.root / "llama.cpp/types.h").read_text() == (
        "enum kind {\n    KIND_A     = 0,\n    KIND_B     = 1,\n    KIND_NEW   = 2,\n    KIND_COUNT = 3,\n};\n"
    )
    assert "        case KIND_NEW: return 34;\n" in (upstream.root / "llama.cpp/table.c").read_text()
    assert (upstream.root / "llama.cpp/src/new.c").read_text() == "int new_kernel;\n"
    assert (upstream.root / "ollama/extra.go").read_text() == "package main\n\nvar extra = 2\n"
    assert (upstream.root / "ollama" / COMPAT_PATCH).read_text() == by_target["llama.cpp"].diff
    assert [edit.status for edit in rendered.edits] == ["applies"] * 5
    assert {file.path: (file.inserted, file.deleted) for file in by_target["llama.cpp"].files}["types.h"] == (2, 1)


def test_rendering_twice_gives_the_same_bytes(upstream: Upstream, make_series: SeriesMaker) -> None:
    series, sources = manifest.load(make_series()), upstream.sources()
    subprocess.run(["git", "-C", str(upstream.root / "llama.cpp"), "config", "diff.context", "9"], check=True)
    subprocess.run(["git", "-C", str(upstream.root / "llama.cpp"), "config", "diff.noprefix", "true"], check=True)
    assert render(series, sources) == render(series, sources)
    assert "a/types.h" in render(series, sources).targets[0].diff


def test_what_would_be_binary_is_refused(upstream: Upstream, make_series: SeriesMaker) -> None:
    series = manifest.load(make_series(edited(insert="a\0b\n")))
    with pytest.raises(SeriesError, match=r"types\.h: with the series it is binary"):
        render(series, upstream.sources())


@pytest.mark.parametrize(
    "changes",
    [{"insert": "{{ cycler.__init__.__globals__ }}"}, {"not-if": {"file": "types.h", "pattern": r"((.|\s)+)+#"}}],
)
def test_a_series_of_another_runs_nothing_and_comes_to_an_end(
    upstream: Upstream, make_series: SeriesMaker, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 0.2)
    series = manifest.load(make_series(edited(**changes)))
    with pytest.raises(SeriesError, match=r"unsafe|takes more than"):
        render(series, upstream.sources())


def test_the_operators_repository_is_untouched(upstream: Upstream, make_series: SeriesMaker) -> None:
    def objects() -> list[Path]:
        return sorted((upstream.root / "llama.cpp/.git").rglob("*"))

    before = objects()
    (upstream.root / "llama.cpp/types.h").write_text("the operator's own work")
    render(manifest.load(make_series()), upstream.sources())
    assert objects() == before
    assert (upstream.root / "llama.cpp/types.h").read_text() == "the operator's own work"


def test_line_drift_does_no_harm(upstream: Upstream, make_series: SeriesMaker) -> None:
    drifted = TABLE_C.replace("int size_of", "\n" * 40 + "int other(void) {\n    return 7;\n}\nint   size_of")
    upstream.commit("llama.cpp", {"table.c": drifted.replace("KIND_A:", "KIND_A :")}, "drift")
    rendered = render(manifest.load(make_series()), upstream.sources())
    assert "case KIND_NEW: return 34;" in rendered.targets[0].diff


def test_an_edit_at_each_place(upstream: Upstream, make_series: SeriesMaker) -> None:
    upstream.commit("llama.cpp", {"types.h": "int old;\nint old;\n" + TYPES_H}, "twice")
    everywhere = {"anchor": "int old", "scope": "", "position": "replace", "insert": "int renamed"}
    rendered = render(manifest.load(make_series(edited(count="all", **everywhere))), upstream.sources())
    assert rendered.targets[0].diff.count("+int renamed;") == 2


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"anchor": "KIND_NONE", "count": "all"}, AnchorMissing, ["ids", "KIND_NONE"]),
        ({"anchor": "KIND_NONE"}, AnchorMissing, ["ids", "KIND_NONE", "enum kind", "types.h"]),
        ({"anchor": "KIND_A", "scope": ""}, AnchorAmbiguous, ["ids", "occurs 2 times", "lines 1, 2"]),
        ({"scope": "enum nokind"}, AnchorMissing, ["enum nokind"]),
        ({"file": "none.h"}, AnchorMissing, ["none.h"]),
        ({"count": 2}, AnchorMissing, ["KIND_COUNT"]),
        ({"insert": "{{ nofact }}"}, SeriesError, ["nofact"]),
        ({"insert": "{% if %}"}, SeriesError, ["types/ids"]),
    ],
)
def test_failures_name_the_edit(
    upstream: Upstream, make_series: SeriesMaker, changes: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    if changes == {"anchor": "KIND_A", "scope": ""}:
        upstream.commit("llama.cpp", {"types.h": "int KIND_A;\nint KIND_A;\n" + TYPES_H}, "twice")
        changes = {**changes, "count": 1, "anchor": "int KIND_A"}
    if "count" in changes and len(changes) == 1:
        error = AnchorAmbiguous
    with pytest.raises(error) as caught:
        render(manifest.load(make_series(edited(**changes))), upstream.sources())
    for word in words:
        assert word in str(caught.value)


def test_two_edits_of_one_place(upstream: Upstream, make_series: SeriesMaker) -> None:
    edits = [*EDITS, {**EDITS[1], "name": "count-again"}]
    with pytest.raises(SeriesError, match="count and count-again change the same place"):
        render(manifest.load(make_series(edits)), upstream.sources())


def test_probes(upstream: Upstream, make_series: SeriesMaker) -> None:
    probe = {"file": "types.h", "pattern": r"\bKIND_B\b"}
    edits = [{**EDITS[2], "upstreamed-when": probe}, {**EDITS[3], "not-if": probe}]
    rendered = render(manifest.load(make_series(edits)), upstream.sources())
    assert [edit.status for edit in rendered.edits] == ["upstreamed", "skipped", "applies"]
    assert [file.path for file in rendered.targets[0].files] == ["src/new.c"]


def test_a_file_of_ours_that_upstream_has(upstream: Upstream, make_series: SeriesMaker) -> None:
    upstream.commit("llama.cpp", {"src/new.c": "theirs"}, "collision")
    with pytest.raises(SeriesError, match=r"already has a file src/new\.c"):
        render(manifest.load(make_series()), upstream.sources())


PATCH = """\
--- a/types.h
+++ b/types.h
@@ -1,3 +1,3 @@
-enum kind {
+enum kind { // patched
     KIND_A     = 0,
     KIND_B     = 1,
"""


@pytest.mark.parametrize(("patch", "good"), [(PATCH, True), (PATCH.replace("KIND_B", "KIND_X"), False)])
def test_plain_patches(upstream: Upstream, make_series: SeriesMaker, patch: str, good: bool) -> None:
    part = {"concern": "p", "target": "llama.cpp", "serves": ">=1", "why": "w", "until": "u", "patch": "p.patch"}
    root = make_series(parts=[part])
    (root / "p.patch").write_text(patch)
    manifest.seal(root)
    if good:
        assert "+enum kind { // patched" in render(manifest.load(root), upstream.sources()).targets[0].diff
    else:
        with pytest.raises(PatchFailed, match="patch"):
            render(manifest.load(root), upstream.sources())


def test_ranges(upstream: Upstream, make_series: SeriesMaker) -> None:
    part = {"concern": "types", "target": "llama.cpp", "why": "w", "until": "u"}
    old = {**part, "serves": "<2", "files": {"old.c": "kernels/new.c"}}
    new = {**part, "serves": ">=2", "files": {"new.c": "kernels/new.c"}}
    series = manifest.load(make_series(parts=[old, new]))
    assert [file.path for file in render(series, upstream.sources()).targets[0].files] == ["old.c"]
    upstream.commit("llama.cpp", {"more": "x"}, "second")
    assert [file.path for file in render(series, upstream.sources()).targets[0].files] == ["new.c"]
    with pytest.raises(SeriesError, match=r"does not support llama\.cpp 2: types \(<2\)"):
        render(manifest.load(make_series(parts=[old], name="old")), upstream.sources())


def test_ollama_versions() -> None:
    names = ["v0.33.0", "v0.33.0-rc2", "v0.33.0-rc2-15-gabc", "v0.33.0-7-gabc", "fb3076099687"]
    assert [ollama_version(name) for name in names] == ["0.33.0", "0.33.0rc2", "0.33.0rc2", "0.33.0", "0"]


@pytest.mark.parametrize("damage", ["change", "add", "remove", "seal"])
def test_a_broken_seal(make_series: SeriesMaker, damage: str) -> None:
    root = make_series()
    if damage == "change":
        (root / "kernels/new.c").write_text("int other;\n")
    elif damage == "add":
        (root / "more.yaml").write_text("x")
    elif damage == "remove":
        (root / "kernels/new.c").unlink()
    else:
        (root / manifest.SEAL).write_text("nonsense\n")
    with pytest.raises(ChecksumMismatch, match=r"series\.seal|SHA256SUMS"):
        manifest.load(root)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("types.yaml", "edits:\n  - name: a\n    name: b\n", "occurs twice"),
        ("types.yaml", "edits:\n  - {name: a, file: x, position: nowhere, insert: y}\n", "nowhere"),
        ("types.yaml", "edits:\n  - {name: a, file: x, position: before, insert: y}\n", "needs an anchor"),
        (
            "types.yaml",
            "edits:\n  - {name: a, file: ../x, anchor: b, position: before, insert: y}\n",
            "leaves the tree",
        ),
        ("types.yaml", "edits:\n  - {name: a, file: x, anchor: b, position: before, insert: y, typo: z}\n", "typo"),
        ("types.yaml", "edits: [", "types.yaml"),
        ("series.yaml", "version: 2\n", "version"),
    ],
)
def test_malformed_series(make_series: SeriesMaker, file: str, text: str, words: str) -> None:
    root = make_series()
    (root / file).write_text(text)
    manifest.seal(root)
    with pytest.raises(SeriesError, match=words):
        manifest.load(root)


def test_our_own_series_is_sealed() -> None:
    series = manifest.load()
    assert [kind.name for kind in series.types] == ["turbo4", "turbo3", "turbo2", "turbo5"]
