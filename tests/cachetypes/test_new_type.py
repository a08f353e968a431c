"""A new cache type, tried on a copy of the series: `turbo5.yaml` has all that it takes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml

from tests.kernels.conftest import cmake_compilers, program
from tests.shared import Miniatures, once
from toolchain import pipeline
from toolchain.contract import proving
from toolchain.core.cachetypes import table
from toolchain.core.cachetypes.grammar import parse
from toolchain.core.config import load
from toolchain.core.run import Run
from toolchain.metal import cases, cost, runs
from toolchain.metal.attention import Attention, pose
from toolchain.metal.formats import formats
from toolchain.metal.host import build_host
from toolchain.models.memory import plan
from toolchain.models.quality import divergence, kernels
from toolchain.models.quality.measure import compare
from toolchain.models.quality.samples import draw
from toolchain.series import manifest
from toolchain.series.edit import Edit, locate, splice_all
from toolchain.series.manifest import load_series

__all__ = ["cmake_compilers"]  # a fixture, used by its name

EDITS: tuple[Edit, ...] = msgspec.convert(
    yaml.safe_load(Path(__file__).with_name("turbo5.yaml").read_text()), manifest.EditFile
).edits
NAMES = ["turbo4", "turbo3", "turbo2", "turbo5"]


def _add(root: Path) -> None:
    shutil.copytree(manifest.OWN_SERIES, root, dirs_exist_ok=True)
    for file in dict.fromkeys(edit.file for edit in EDITS):
        text = (root / file).read_text()
        splices = [splice for edit in EDITS if edit.file == file for splice in locate(edit, text, edit.insert)]
        (root / file).write_text(splice_all(text, splices))
    manifest.seal(root)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "turbo5", _add)


@pytest.fixture
def run(tmp_path: Path, miniatures: Miniatures, series: Path) -> Run:
    made = miniatures.run(tmp_path, miniatures.plain(tmp_path))
    return replace(made, config=replace(made.config, series=replace(made.config.series, path=str(series))))


def test_how_many_files_it_takes() -> None:
    """The row, the codebook, and decoders for a number of raw bits that no type had before; nothing of the toolkit."""
    assert {edit.file for edit in EDITS} == {
        "series.yaml",
        "kernels/ggml-turbo-types.h",
        "kernels/ggml-turbo-codec.h",
        "kernels/ggml-cpu-turbo.c",
        "kernels/ggml-metal-turbo-decode.metal",
        "kernels/ggml-metal-turbo-encode.metal",
    }


def test_the_table_and_all_lists_have_it(series: Path) -> None:
    added = table.own(series)
    assert [kind.name for kind in added] == NAMES
    kind = table.type_table(added)["turbo5"]
    assert (table.bits_per_value(kind), table.row_bytes(kind, 128), kind.quantized) == (5.25, 84, True)
    assert {"turbo5", "q8_0"} == set(parse("q8_0:turbo5,first=2:q8_0,mode=7").names())

    config = load(environ={}, flags={"series.path": str(series)})
    assert config.verify.types[:4] == tuple(NAMES)
    assert config.deploy.kv_cache_type == "turbo4"
    assert "turbo5" in plan.usual_types(added)
    assert "turbo5" in divergence.usual_caches(added)
    for pairs in (cases.usual(NAMES), [*cases.pairs(NAMES)], cost.pairs(NAMES), proving.pairs(NAMES)):
        assert ("turbo5", "turbo5") in pairs
    assert "turbo5" in {one.v for one in cases.attentions(NAMES)}
    assert "turbo5" in {one.k for one in proving.short_cases(NAMES)}


def test_the_series_renders_and_holds(run: Run) -> None:
    sources = pipeline.prepare(run)
    checked = pipeline.check_series(run, sources, behaviour=False)
    assert checked.ok, checked.reason
    rendered = pipeline.render_series(run, sources)
    assert [kind.name for kind in rendered.cache_types] == NAMES
    assert rendered.cache_types[-1].db == 29.6
    llama_cpp, ollama = (target.diff for target in rendered.targets)
    first = int(rendered.facts["next_type_id"])
    for number, name in enumerate(NAMES):
        assert f"+    GGML_TYPE_{name.upper()}  = {first + number}," in llama_cpp
    assert f"+    GGML_TYPE_COUNT   = {first + 4}," in llama_cpp
    assert '+\t"turbo5": {64, 42},' in ollama


def test_the_reference_keeps_its_promise(run: Run) -> None:
    """Better than turbo4 by what one bit is worth, and as its row states."""
    sample = draw("gaussian", tokens=500, head_size=128, seed=3).rotated()
    found = {
        codec.name: compare(sample, codec.restore(sample), np.random.default_rng(0)).snr_db
        for codec in kernels.load(load_series(run), run.config, run.workspace)
    }
    assert found["turbo5"] > found["turbo4"] + 5
    for kind in load_series(run).types:
        assert found[kind.name] == pytest.approx(kind.db, abs=0.3), kind.name


@pytest.mark.slow
def test_every_variant_gives_the_bits_of_the_reference(
    series: Path, tmp_path: Path, cmake_compilers: list[str]
) -> None:
    program("cmake", "-S", series / "kernels", "-B", tmp_path, *cmake_compilers)
    program("cmake", "--build", tmp_path)
    said = program("ctest", "--test-dir", tmp_path, "--verbose")
    assert "100% tests passed" in said
    assert "turbo5: 5.250 bits per value" in said


@pytest.mark.slow
def test_metal_computes_with_it(run: Run) -> None:
    """Rows bit for bit, and attention beside other types, on the miniature's host code."""
    tree = pipeline.patched_llama_cpp(run)
    series, workspace = load_series(run), run.workspace
    host, known = build_host(tree, run.config, workspace), formats(series, run.config, workspace)
    rows = list(cases.conversions(known["turbo5"]))
    attentions = [
        Attention(k=k, v=v, dk=64, dv=64, queries=queries, positions=45, seed=queries)
        for k, v in (("turbo5", "turbo5"), ("q8_0", "turbo5"), ("turbo5", "turbo4"))
        for queries in (1, 33)
    ]
    asked = [*(case.operation for case in rows), *(pose(case, known).operation for case in attentions)]
    library = runs.compile_tree(tree, host, workspace, asked, kernels=())
    done = [
        *(runs.run_conversion(host, library, case) for case in rows),
        *(runs.run_attention(host, library, case, known) for case in attentions),
    ]
    assert [case for case in done if not case.ok] == []
    assert len(done) == len(rows) + 6
