"""Kernels in files of their own: what is a library, what is embedded of it, and trees whose lists do not fit."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.shared import Miniatures
from toolchain.core.checkout import MINIATURE
from toolchain.core.config import load
from toolchain.core.errors import KernelInvalid, MetalLayoutUnknown
from toolchain.metal import audit, cases, inspection, runs
from toolchain.metal.attention import Attention, pose
from toolchain.metal.formats import Format, formats
from toolchain.metal.host import build_host
from toolchain.metal.layout import BUILD, FOLDER, HOST, KERNELS, WHOLE, kernel_sources
from toolchain.series import manifest
from toolchain.text import as_text

pytestmark = pytest.mark.slow

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, miniatures: Miniatures) -> Path:
    folder = tmp_path_factory.mktemp("split")
    return miniatures.plain(folder, split_kernels=True).llama_cpp


@pytest.fixture
def tree(made: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(made / "ggml", tmp_path / "tree/ggml")
    return tmp_path / "tree"


def changed(file: Path, old: str, new: str) -> Change:
    def change(tree: Path) -> None:
        text = (tree / file).read_text()
        assert old in text
        (tree / file).write_text(text.replace(old, new))

    return change


def added(file: Path, text: str = "") -> Change:
    def add(tree: Path) -> None:
        (tree / file).write_text(text)

    return add


def removed(file: Path) -> Change:
    return lambda tree: (tree / file).unlink()


def test_each_file_is_a_library(made: Path) -> None:
    sources = kernel_sources(made)
    assert [source.path.name for source in sources] == ["fa.metal", "fa_aux.metal", "quantize.metal"]
    found = inspection.inspect(made)
    assert found.ok, found
    assert found.libraries == 3
    assert "in 3 libraries" in as_text(found)


def test_both_layouts_have_the_same_kernels(made: Path) -> None:
    whole = MINIATURE / "llama.cpp"
    assert inspection.inspect(made).kernels == inspection.inspect(whole).kernels
    assert [source.path for source in kernel_sources(whole)] == [whole / WHOLE]


def test_the_text_is_what_cmake_embeds(made: Path, tmp_path: Path) -> None:
    argv: list[str | Path] = ["cmake", "-S", made / FOLDER, "-B", tmp_path, "-DGGML_METAL_EMBED_LIBRARY=ON"]
    subprocess.run(argv, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", tmp_path], check=True, capture_output=True)
    for source in kernel_sources(made):
        lines = [line for line in source.text.splitlines() if not line.startswith("#line ")]
        assert (tmp_path / f"ggml-metal-embed-{source.path.name}").read_text().splitlines() == lines


def test_a_message_names_the_file_that_it_is_about(tree: Path) -> None:
    changed(KERNELS / "fa_common.metal", "float s = product * args.scale;", "float s = product * args.sale;")(tree)
    line = (tree / KERNELS / "fa_common.metal").read_text().split("args.sale")[0].count("\n") + 1
    with pytest.raises(KernelInvalid, match=rf"kernels/fa_common\.metal:{line}: .*'sale'"):
        inspection.inspect(tree)


def test_an_include_that_is_not_embedded_is_found(tree: Path) -> None:
    """The file is there, so that a compiler would find it, but not where the embedded text is compiled."""
    added(KERNELS / "more.h", "constant int more = 1;\n")(tree)
    changed(KERNELS / "fa.metal", '#include "fa_common.metal"\n', '#include "fa_common.metal"\n#include "more.h"\n')(
        tree
    )
    with pytest.raises(KernelInvalid, match=r"kernels/fa\.metal:4: 'more\.h' file not found"):
        inspection.inspect(tree)


def test_a_build_that_embeds_in_another_way_is_taken_by_its_includes(tree: Path) -> None:
    once = '#pragma once\n#include "common.h"\n'
    changed(BUILD, "HEADERS_FOR_SRC", "BEFORE")(tree)
    added(KERNELS / "more.h", "constant int more = 1;\n")(tree)
    changed(KERNELS / "fa.metal", '#include "fa_common.metal"\n', '#include "fa_common.metal"\n#include "more.h"\n')(
        tree
    )
    # fa_common.metal is in no list now, and looks like a kernel file that was forgotten
    changed(BUILD, "    kernels/fa_aux.metal\n", "    kernels/fa_aux.metal\n    kernels/fa_common.metal\n")(tree)
    changed(HOST, "    X(FA_AUX, fa_aux)", "    X(FA_AUX, fa_aux) \\\n    X(FA_COMMON, fa_common)")(tree)
    changed(KERNELS / "fa_common.metal", "constant bool has_mask ", f"{once}constant bool has_mask ")(tree)
    assert all(not source.text for source in kernel_sources(tree))
    assert inspection.inspect(tree).ok


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (added(WHOLE, "\n"), "ggml-metal.metal as well as 4 files in ggml/src/ggml-metal/kernels"),
        (lambda tree: shutil.rmtree(tree / KERNELS), "neither ggml/src/ggml-metal/ggml-metal.metal nor files"),
        (removed(BUILD), "no ggml/src/ggml-metal/CMakeLists.txt"),
        (removed(KERNELS / "quantize.metal"), "CMakeLists.txt lists kernels/quantize.metal, which is not there"),
        (added(KERNELS / "turbo.metal"), "kernels/turbo.metal is there, and CMakeLists.txt neither lists it"),
        (
            changed(HOST, "X(FA, fa)", "X(FA, fa) \\\n    X(TURBO, turbo)"),
            "ggml-metal-device.m has a library turbo, which CMakeLists.txt does not list",
        ),
        (
            changed(HOST, "    X(FA_AUX, fa_aux) \\\n", ""),
            "CMakeLists.txt lists kernels/fa_aux.metal, and ggml-metal-device.m has no library of that name",
        ),
        (
            changed(BUILD, "    kernels/fa.metal\n", "    kernels/fa.metal\n    kernels/fa.metal\n"),
            "CMakeLists.txt lists kernels/fa.metal 2 times",
        ),
        (changed(BUILD, "METALLIB_KERNEL_SOURCES", "OTHER"), "has no METALLIB_KERNEL_SOURCES"),
        (changed(HOST, "GGML_METAL_LIBS", "OTHER"), "has no GGML_METAL_LIBS"),
        (removed(KERNELS / "dequantize.h"), "kernels/dequantize.h: not there, and CMakeLists.txt embeds it"),
    ],
)
def test_what_does_not_fit_is_refused(tree: Path, change: Change, said: str) -> None:
    change(tree)
    with pytest.raises(MetalLayoutUnknown, match=re.escape(said)) as refused:
        kernel_sources(tree)
    assert refused.value.hint


def test_all_that_is_wrong_with_the_lists_is_said_at_once(tree: Path) -> None:
    removed(KERNELS / "quantize.metal")(tree)
    added(KERNELS / "turbo.metal")(tree)
    with pytest.raises(MetalLayoutUnknown) as refused:
        kernel_sources(tree)
    assert str(refused.value).count("\n  ") == 3, "two lines, and what to try"


def test_a_kernel_in_two_libraries(tree: Path) -> None:
    text = (tree / KERNELS / "fa_aux.metal").read_text()
    kernel = text[text.index("kernel void") :].replace("parts", "4")
    changed(KERNELS / "quantize.metal", "// Where the row", f"{kernel}\n// Where the row")(tree)
    found = inspection.inspect(tree)
    assert found.twice == {"kernel_flash_attn_ext_vec_reduce": "fa_aux.metal and quantize.metal"}
    assert "1 kernels in two libraries" in str(found.failure())


@pytest.mark.parametrize("queries", [1, 33])
def test_attention_over_several_libraries(made: Path, tmp_path: Path, miniatures: Miniatures, queries: int) -> None:
    """Its kernels lie in two of them; a device asks all."""
    (tmp_path / "turboquant.yaml").touch()
    host = build_host(made, load(file=tmp_path / "turboquant.yaml", environ={}), miniatures.workspace)
    known = {"q8_0": Format(name="q8_0", block=32, bytes=34)}
    case = Attention(k="q8_0", v="q8_0", dk=64, dv=64, queries=queries, heads=4, kv_heads=2)
    libraries = runs.compile_tree(made, host, miniatures.workspace, [pose(case, known).operation])
    done = runs.run_attention(host, libraries, case, known)
    assert done.ok, done.wrong
    assert libraries.backend.of("kernel_flash_attn_ext_vec_reduce", {}).path.name == "fa_aux.metal"
    with pytest.raises(KernelInvalid, match="no library has a kernel kernel_none"):
        libraries.backend.of("kernel_none", {})


def test_the_series_holds_on_the_other_layout(tmp_path: Path, miniatures: Miniatures) -> None:
    """It applies, the backend's own kernels still fit the host code, and ours run beside them."""
    tree = miniatures.patched(tmp_path, split_kernels=True)
    assert (tree / KERNELS / "fa.metal").is_file()
    assert not (tree / WHOLE).exists()
    config = load(file=tmp_path / "turboquant.yaml", environ={})
    assert inspection.inspect(tree).ok
    workspace = miniatures.workspace
    assert audit.audit_tree(tree, config, workspace).verdict == "complete"

    series = manifest.load()
    known, host = formats(series, config, workspace), build_host(tree, config, workspace)
    rows = list(cases.conversions(known["turbo4"]))
    attentions = [
        Attention(k=k, v=v, dk=64, dv=64, queries=queries, heads=4, kv_heads=2, seed=queries)
        for k, v in (("turbo4", "turbo4"), ("q8_0", "turbo4"), ("q8_0", "q8_0"))
        for queries in (1, 33)
    ]
    asked = [case.operation for case in rows] + [pose(case, known).operation for case in attentions]
    libraries = runs.compile_tree(tree, host, workspace, asked)
    done = [runs.run_conversion(host, libraries, case) for case in rows]
    done += [runs.run_attention(host, libraries, case, known) for case in attentions]
    assert [case for case in done if not case.ok] == []
