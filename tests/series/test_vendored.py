"""An era in which llama.cpp is a part of Ollama's tree: one diff, and a llama.cpp of links in the scratch trees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolchain import sources
from toolchain.contract.check import check
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.errors import SeriesError
from toolchain.core.run import Run
from toolchain.series import drift, manifest
from toolchain.series.render import render, trees
from toolchain.stages import Sources

from .conftest import MAIN_GO, TABLE_C, TYPES_H, SeriesMaker, Upstream

PARTS: list[dict[str, Any]] = [
    {
        "concern": "types",
        "target": "llama.cpp",
        "serves": {"pinned": ">=1", "vendored": ">=0.15.0"},
        "why": "the type",
        "until": "never",
        "edits": "types.yaml",
        "files": {"src/new.c": "kernels/new.c", "ggml/src/new.c": "kernels/new.c"},
    },
    {"concern": "go", "target": "ollama", "serves": ">=0.30", "why": "x", "until": "never", "edits": "go.yaml"},
]
TREE = {
    "Makefile.sync": "FETCH_HEAD=b1\n",
    "llama/llama.cpp/types.h": TYPES_H,
    "llama/llama.cpp/table.c": TABLE_C,
    "ml/backend/ggml/ggml/src/ggml.c": "",
}


def contained(upstream: Upstream, describe: str = "v0.17.7", files: dict[str, str] | None = None) -> Sources:
    upstream.commit("ollama", dict(TREE if files is None else files), describe)
    found = upstream.sources()
    return replace(found, era="vendored", ollama=replace(found.ollama, describe=describe))


def test_one_diff_for_one_tree(upstream: Upstream, make_series: SeriesMaker) -> None:
    series, found = manifest.load(make_series(parts=PARTS)), contained(upstream)
    checked = check(series, found, Console())
    assert (checked.ok, {edit.status for edit in checked.edits}) == (True, {"applies"})
    (only,) = render(series, found).targets
    assert (only.target, only.commit) == ("ollama", found.ollama.commit)
    assert [file.path for file in only.files] == [
        "llama/llama.cpp/src/new.c",
        "llama/llama.cpp/table.c",
        "llama/llama.cpp/types.h",
        "llama/patches/9900-turboquant.patch",
        "ml/backend/ggml/ggml/src/new.c",
    ]
    assert render(series, found).targets == (only,)


def test_its_llama_cpp_part_applies_to_llama_cpp_itself(upstream: Upstream, make_series: SeriesMaker) -> None:
    """As Makefile.sync does it: `git am` of every patch."""
    series, found = manifest.load(make_series(parts=PARTS)), contained(upstream)
    made = sources.create(found, render(series, found), upstream.root / "scratch", Console())
    upstream.git("llama.cpp", "am", str(made.ollama / "llama/patches/9900-turboquant.patch"))
    assert upstream.git("llama.cpp", "log", "-1", "--format=%s %an") == "TurboQuant KV cache types TurboQuant toolchain"
    for path in ("types.h", "table.c", "src/new.c", "ggml/src/new.c"):
        assert (upstream.root / "llama.cpp" / path).read_bytes() == (made.llama_cpp / path).read_bytes()


def test_scratch_has_a_llama_cpp_of_links(upstream: Upstream, make_series: SeriesMaker) -> None:
    series, found = manifest.load(make_series(parts=PARTS)), contained(upstream)
    root = sources.scratch_root(load(flags={"workspace": str(upstream.root / "ws")}), found)
    for _ in range(2):
        made = sources.create(found, render(series, found), root, Console())
        assert made.llama_cpp_commit == made.ollama_commit
        assert sorted(path.name for path in made.llama_cpp.iterdir()) == ["ggml", "src", "table.c", "types.h"]
        assert "KIND_NEW" in (made.llama_cpp / "types.h").read_text()
        assert (made.llama_cpp / "ggml/src/new.c").resolve() == (
            made.ollama.resolve() / "ml/backend/ggml/ggml/src/new.c"
        )


def test_a_moved_anchor_is_named_as_in_llama_cpp(upstream: Upstream, make_series: SeriesMaker) -> None:
    contained(upstream)
    moved = TABLE_C.replace("int size_of(enum kind kind)", "int bytes_of(enum kind kind)")
    found = contained(upstream, "v0.17.8", {"llama/llama.cpp/table.c": moved})
    checked = check(manifest.load(make_series(parts=PARTS)), found, Console())
    (broken,) = (edit for edit in checked.edits if edit.status != "applies")
    assert (broken.name, broken.status, broken.file) == ("types/size", "moved", "table.c")
    assert broken.candidates == ("table.c:8 (int bytes_of(enum kind kind))",)
    assert broken.culprit.startswith(found.ollama.commit[:12])


def test_what_the_series_says_of_eras(upstream: Upstream, make_series: SeriesMaker) -> None:
    old = contained(upstream, "v0.14.9")
    with pytest.raises(SeriesError, match=r"does not support llama\.cpp 0\.14\.9: types \(>=0\.15\.0\)"):
        render(manifest.load(make_series(parts=PARTS)), old)
    with pytest.raises(SeriesError, match="no part for the vendored era"):
        render(manifest.load(make_series(name="other")), old)
    wrong = [PARTS[0] | {"serves": {"steam": ">=1"}}]
    with pytest.raises(SeriesError, match=r"types: 'steam' is not an era"):
        manifest.load(make_series(parts=wrong, name="wrong"))


def test_paths_and_contents_are_llama_cpps_own(upstream: Upstream) -> None:
    llama_cpp, ollama = trees(contained(upstream))
    assert llama_cpp.paths() == ["table.c", "types.h", "ggml/src/ggml.c"]
    assert (llama_cpp.paths("ggml/src"), "main.go" in ollama.paths()) == (["ggml/src/ggml.c"], True)
    assert llama_cpp.contents("ggml", "types.h").keys() == {"ggml/src/ggml.c", "types.h"}
    assert (ollama.read("main.go"), llama_cpp.read("main.go")) == (MAIN_GO.encode(), None)


def test_drift_goes_back_through_the_eras(upstream: Upstream, make_series: SeriesMaker, tmp_path: Path) -> None:
    """llama.cpp's edits are tried on what a release contains, Ollama's on those that pin a build."""
    for tag, files in (
        ("v0.14.0", TREE),
        ("v0.17.7", {"readme": "17"}),
        ("v0.20.0", {"llama/llama.cpp/table.c": TABLE_C.replace("int size_of(", "int bytes_of(")}),
        ("v0.24.0", {"llama/llama.cpp/table.c": TABLE_C}),
    ):
        upstream.commit("ollama", dict(files), tag)
        upstream.git("ollama", "tag", tag)
    broken = upstream.git("ollama", "rev-parse", "v0.20.0")
    gone = dict.fromkeys(TREE)
    upstream.commit("ollama", {**gone, "LLAMA_CPP_VERSION": "b1\n", "llama/compat/readme": "x\n"}, "v0.30.0")
    upstream.git("ollama", "tag", "v0.30.0")
    flags = {
        "sources.llama_cpp": str(upstream.root / "llama.cpp"),
        "sources.ollama": str(upstream.root / "ollama"),
        "workspace": str(tmp_path / "workspace"),
    }
    parts = [PARTS[0], *({**PARTS[1], "concern": era, "serves": {era: ">=0.15"}} for era in ("pinned", "vendored"))]
    series = manifest.load(
        make_series(
            parts=[parts[0], parts[1], {**parts[2], "edits": "vendored.yaml"}],
            more={
                "vendored.yaml": "edits:\n"
                "  - {name: module, file: go.mod, anchor: module, position: before, insert: '// ours'}\n"
            },
        )
    )
    found = drift.survey(Run(load(flags=flags), Console(json=True)), series, "b1", "", 1).surveys[1]
    assert [(point.name, point.failing) for point in found.points] == [
        ("v0.17.7", ()),
        ("v0.20.0", ("types/size",)),
        ("v0.24.0", ()),
        ("v0.30.0", ()),
    ]
    elsewhere = {edit.name: edit.elsewhere for edit in found.edits}
    assert elsewhere["types/ids"] == ("v0.30.0",)
    assert elsewhere["go/launch"] == ("v0.17.7", "v0.20.0", "v0.24.0")
    assert elsewhere["vendored/module"] == ("v0.30.0",)
    assert [(turn.edit, turn.holds) for turn in found.turns] == [("types/size", False), ("types/size", True)]
    assert found.turns[0].commit == broken
