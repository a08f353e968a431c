"""The area on Metal: the program that asks a GPU, its request, and what is found in its answers.

No Mac is needed for this, and none was: the answers are written here as the program would print them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.shared import Miniatures
from toolchain.core import process
from toolchain.core.run import Run
from toolchain.firstrun import pipelines
from toolchain.firstrun.areas import metal
from toolchain.firstrun.assumption import Finding
from toolchain.firstrun.bench import Evidence
from toolchain.firstrun.pipelines import Pipeline, Wanted
from toolchain.metal import compiler
from toolchain.metal.drivers import drivers
from toolchain.metal.layout import kernel_sources

ASKED = Wanted(
    sources={"source0": "", "ggml-metal.metal": ""},
    macros={},
    pipelines=(
        Pipeline(library="source0", kernel="kernel_turbo_a", constants={"1": 4}, threads=512, memory=16, static=8000),
        Pipeline(library="", kernel="kernel_pad", constants={"0": True}, threads=32, memory=0),
    ),
)
DEVICE = {"device": "Apple M3 Max", "threads": 1024, "memory": 32768, "unified": True, "apple7": True, "metal3": True}
LIBRARIES = [
    {"library": "source0", "seconds": 3.5, "functions": 40},
    {"library": "ggml-metal.metal", "seconds": 6.0, "functions": 900},
]
PIPELINES = [
    {"pipeline": 0, "kernel": "kernel_turbo_a", "seconds": 0.4, "threads": 512, "width": 32, "memory": 8000},
    {"pipeline": 1, "kernel": "kernel_pad", "seconds": 0.1, "threads": 1024, "width": 32, "memory": 0},
]

SLOWEST = "the slowest: kernel_turbo_a 0.40 s, kernel_pad 0.10 s"


def answer(*lines: dict[str, object], doubt: str = "") -> dict[str, Finding]:
    """The findings on lines of the program, between others."""
    output = "\n".join(
        ["2026 Metal API Validation Enabled", *(msgspec.json.encode(one).decode() for one in lines), "{"]
    )
    seen = Evidence(command="compile_kernels", code=0, seconds=1.0, output=output)
    return {one.id: one for one in metal.judge(ASKED, pipelines.read(output), "", seen)}


def refuted(found: dict[str, Finding]) -> dict[str, str]:
    return {name.removeprefix("metal."): one.reason for name, one in found.items() if one.status == "refuted"}


def test_the_program_is_objective_c_that_a_compiler_accepts() -> None:
    front = drivers().front
    headers = Path(front[0]).parent / "lib" / "include"
    own = ["-nostdinc", "-isystem", str(headers)] if headers.is_dir() else []
    words = ["-x", "objective-c", "-std=gnu11", "-target", "arm64-apple-macos14", "-fobjc-arc", "-Wall", "-Werror"]
    process.run([*front, *words, *own, "-I", Path(__file__).parent / "apple", "-fsyntax-only", pipelines.PROGRAM])


def test_a_gpu_that_does_all_of_it_confirms_it() -> None:
    found = answer(DEVICE, *LIBRARIES, *PIPELINES)
    assert {one.status for one in found.values()} == {"confirmed"}
    assert sorted(found) == sorted(one.id for one in metal.AREA.assumptions)
    assert found["metal.time"].reason.startswith(
        "9.5 s for libraries, 0.5 s for 2 pipelines; the slowest: kernel_turbo"
    )
    assert found["metal.threads"].reason == "the closest: kernel_turbo_a, which needs 512 and may have 512"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            [DEVICE | {"memory": 16384}, *LIBRARIES, *PIPELINES],
            {"device": "Apple M3 Max: 1024 threads and 16384 bytes for a threadgroup"},
            id="little memory",
        ),
        pytest.param(
            [DEVICE, LIBRARIES[0] | {"error": "line 3: no\nmore"}, LIBRARIES[1], *PIPELINES],
            {"libraries": "source0: line 3: no"},
            id="a source that does not compile",
        ),
        pytest.param(
            [DEVICE, *LIBRARIES, {"pipeline": 0, "kernel": "kernel_turbo_a", "error": "registers"}, PIPELINES[1]],
            {"pipelines": "1 of 2 cannot be made: kernel_turbo_a {'1': 4}: registers"},
            id="a pipeline that cannot be made",
        ),
        pytest.param(
            [DEVICE, *LIBRARIES, PIPELINES[0]],
            {"pipelines": "0 of 2 cannot be made: ; 1 without an answer"},
            id="ended early",
        ),
        pytest.param(
            [DEVICE, *LIBRARIES, PIPELINES[0] | {"threads": 448}, PIPELINES[1]],
            {"threads": "kernel_turbo_a {'1': 4}: 448 of 512 threads"},
            id="few threads",
        ),
        pytest.param(
            [DEVICE, *LIBRARIES, PIPELINES[0] | {"memory": 9000}, PIPELINES[1]],
            {"memory": "kernel_turbo_a {'1': 4}: 9000 bytes, the harness counts 8000"},
            id="other memory",
        ),
        pytest.param(
            [DEVICE, LIBRARIES[0] | {"seconds": 31.0}, LIBRARIES[1], *PIPELINES],
            {"time": f"37.0 s for libraries, 0.5 s for 2 pipelines; {SLOWEST}"},
            id="slow",
        ),
    ],
)
def test_what_a_gpu_does_otherwise_is_named(lines: list[dict[str, object]], expected: dict[str, str]) -> None:
    assert refuted(answer(*lines)) == expected


def test_without_a_device_nothing_is_tested() -> None:
    seen = Evidence(command="", code=3, seconds=0.1, output="there is no Metal device in this context\n")
    found = list(metal.judge(ASKED, pipelines.read(seen.output), "", seen))
    reason = "the GPU did not answer: there is no Metal device in this context"
    assert {(one.status, one.reason) for one in found} == {("not tested", reason)}


def test_without_the_harness_its_memory_is_not_compared() -> None:
    bare = replace(ASKED, pipelines=tuple(replace(one, static=None) for one in ASKED.pipelines))
    made = pipelines.read("\n".join(msgspec.json.encode(one).decode() for one in (DEVICE, *LIBRARIES, *PIPELINES)))
    (memory,) = (one for one in metal.judge(bare, made, "no clang") if one.id == "metal.memory")
    assert (memory.status, memory.reason) == ("not tested", "the harness counted nothing: no clang")


@pytest.fixture
def patched(miniatures: Miniatures, tmp_path: Path) -> tuple[Run, Path]:
    tree = miniatures.patched(tmp_path)
    miniatures.share_compiled(tmp_path / "workspace")
    return miniatures.run(tmp_path, miniatures.plain(tmp_path / "upstream")), tree


@pytest.mark.slow
def test_the_request_names_every_kernel_of_a_cache_with_its_constants(
    patched: tuple[Run, Path], tmp_path: Path
) -> None:
    run, tree = patched
    asked = pipelines.wanted(run, tree, full=False)
    own = [one for one in asked.pipelines if one.library]
    kernels = {one.kernel for one in own}
    assert {
        "kernel_turbo_set_rows_i64_turbo4",
        "kernel_turbo_get_rows_turbo2",
        "kernel_turbo_copy_f32_turbo3",
    } <= kernels
    assert any(name.startswith("kernel_turbo_attention_many_dk128_dv128") for name in kernels)
    assert all(one.constants for one in own)
    assert max(one.threads for one in asked.pipelines) <= 1024
    (tmp_path / "request").mkdir()
    written = msgspec.json.decode(pipelines.request(asked, tmp_path / "request").read_bytes())
    assert [one["kernel"] for one in written["pipelines"]] == [one.kernel for one in asked.pipelines]
    for library in written["libraries"]:
        text = Path(library["path"]).read_text()
        assert "kernel void" in text
        assert '#include "' not in text


@pytest.mark.slow
def test_the_text_of_a_library_compiles_without_include_files(patched: tuple[Run, Path], tmp_path: Path) -> None:
    _, tree = patched
    (part,) = kernel_sources(tree)
    (alone := tmp_path / "alone.metal").write_text(pipelines.inlined(part))
    assert (
        compiler.check(alone, defines=pipelines.MACROS).kernels.keys()
        == compiler.check(part.path, include=part.include, defines=pipelines.MACROS).kernels.keys()
    )
