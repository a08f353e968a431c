"""Our kernels on the patched miniature, by its own host code: right as they are, and caught when they are broken."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain import metal
from toolchain.config import Config, load
from toolchain.console import Console
from toolchain.metal import cases, runs
from toolchain.metal.attention import Attention, pose
from toolchain.metal.execute import execute, unwritten
from toolchain.metal.formats import Format, formats
from toolchain.metal.host import METAL, Host, Operation, Tensor, build_host
from toolchain.metal.results import Case
from toolchain.series import manifest

from .patched import patched_miniature

TURBO = METAL / "ggml-metal-turbo.metal"


@dataclass(frozen=True, kw_only=True)
class Patched:
    """The miniature with the series applied, and what is made of it."""

    tree: Path
    workspace: Path
    config: Config
    host: Host
    library: metal.Library
    formats: dict[str, Format]


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Patched:
    folder = tmp_path_factory.mktemp("patched")
    tree = patched_miniature(folder)
    config = load(file=folder / "turboquant.yaml", environ={})
    host = build_host(tree, config, folder)
    library = runs.compile_tree(tree, folder)
    return Patched(
        tree=tree, workspace=folder, config=config, host=host, library=library,
        formats=formats(manifest.load(), config, folder),
    )  # fmt: skip


def test_every_case_passes(patched: Patched) -> None:
    ran = runs.run_tree(patched.tree, manifest.load(), patched.config, patched.workspace, Console(json=True))
    assert [case for case in ran.cases if not case.ok] == []
    assert ran.passed == len(ran.cases) > 70
    covered = {
        (case.type, case.head_size) for case in ran.cases if case.kernel.startswith("kernel_flash_attn_ext_turbo")
    }
    assert {size for _, size in covered} == {f"{dk}/{dv}" for dk, dv in cases.SIZES if dk <= 512}
    assert {kind for kind, _ in covered} == {"/".join(pair) for pair in cases.PAIRS}
    assert {case.kernel for case in ran.cases if "_turbo_dk576_dv512" in case.kernel} == {
        "kernel_flash_attn_ext_vec_turbo_dk576_dv512"
    }


@pytest.mark.parametrize("case", list(cases.unmasked()), ids=lambda case: f"{case.k}/{case.v}-{case.queries}")
def test_attention_without_a_mask(patched: Patched, case: Attention) -> None:
    done = runs.run_attention(patched.host, patched.library, case, patched.formats)
    assert done.ok, done.wrong


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["turbo4", "turbo3", "turbo2"]),
    scale=st.floats(-12, 12),
    rows=st.integers(1, 5),
    blocks=st.integers(1, 9),
    equal=st.sampled_from([0.0, 1.0, 10.0]),
)
def test_rows_are_encoded_bit_for_bit(
    patched: Patched, seed: int, kind: str, scale: float, rows: int, blocks: int, equal: float
) -> None:
    """Magnitudes that differ little are for the second codebook."""
    rng = np.random.default_rng(seed)
    values = rng.standard_t(rng.uniform(1, 30), (rows, 64 * blocks))
    values = ((values + equal * np.sign(values)) * 10.0**scale).astype(np.float32)
    known = patched.formats[kind]
    wanted = known.encode(values)
    width, row = 64 * blocks, known.row(64 * blocks)
    operation = Operation(
        name="SET_ROWS",
        result=Tensor(type=kind, ne=(width, rows), nb=(known.bytes, row)),
        operands=(
            Tensor(type="f32", ne=(width, rows), nb=(4, 4 * width)),
            Tensor(type="i64", ne=(rows,), nb=(8,)),
        ),
    )
    numbers = np.arange(rows, dtype=np.int64)
    operands = (values.view(np.uint8).reshape(-1), numbers.view(np.uint8))
    done = execute(patched.host, patched.library, operation, operands, unwritten(wanted.size))
    assert np.array_equal(done.result, wanted)
    assert done.findings == ()


def test_what_is_claimed_has_a_kernel_and_the_rest_is_not_claimed(patched: Patched) -> None:
    """Over all pairs of types and sizes: a claimed attention asks for kernels that the library has."""
    sizes = [*cases.SIZES, (128, 64), (64, 128), (448, 448)]
    wanted = [
        (k, v, dk, dv, queries)
        for k in patched.formats
        for v in patched.formats
        for dk, dv in sizes
        for queries in (1, 33)
        if "turbo" in k + v
    ]
    operations = [
        pose(Attention(k=k, v=v, dk=dk, dv=dv, positions=1, queries=q), patched.formats).operation
        for k, v, dk, dv, q in wanted
    ]
    for (k, v, dk, dv, _), recorded in zip(wanted, patched.host.record(operations), strict=True):
        assert recorded.claimed == ((dk, dv) in cases.SIZES and "q4_0" not in (k, v)), (k, v, dk, dv)
        assert all(dispatch.kernel in patched.library.known for dispatch in recorded.dispatches)
        assert all(dispatch.memory <= 32768 for dispatch in recorded.dispatches)
    f32 = Tensor(type="f32", ne=(64, 1), nb=(4, 256))
    turbo = Tensor(type="turbo4", ne=(64, 1), nb=(34, 34))
    product = Operation(name="MUL_MAT", result=Tensor(type="f32", ne=(1, 1), nb=(4, 4)), operands=(turbo, f32))
    again = Operation(name="CPY", result=turbo, operands=(turbo,))
    assert [answer.claimed for answer in patched.host.record([product, again])] == [False, False]


def test_the_embedded_library_is_one_text(patched: Patched, tmp_path: Path) -> None:
    """CMake pastes the kernels in, and what it makes compiles without any of the files."""
    source = patched.tree / METAL
    argv: list[str | Path] = ["cmake", "-S", source, "-B", tmp_path / "build", "-DGGML_METAL_EMBED_LIBRARY=ON"]
    subprocess.run(argv, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", tmp_path / "build"], check=True, capture_output=True)
    text = (tmp_path / "build/ggml-metal-embed.metal").read_text()
    assert re.findall(r'^#include "([^"]+)"', text, re.MULTILINE) == ["ggml-common.h"]  # for files, by its condition
    alone = tmp_path / "alone.metal"
    alone.write_text(text)
    found = metal.check(alone, defines={"GGML_METAL_EMBED_LIBRARY": "1"})
    assert set(found.kernels) == set(patched.library.known)


@pytest.fixture
def broken(patched: Patched, tmp_path: Path) -> Path:
    """A copy of the patched tree to break."""
    tree = tmp_path / "tree"
    shutil.copytree(patched.tree / "ggml", tree / "ggml")
    return tree


def breaks(tree: Path, path: Path, good: str, bad: str) -> None:
    text = (tree / path).read_text()
    assert text.count(good) == 1, f"{path}: {good!r} stands {text.count(good)} times"
    (tree / path).write_text(text.replace(good, bad))


def rows_of(patched: Patched, tree: Path, kernel: str) -> Case:
    """The case of a row operation's kernel, from the sources at `tree`."""
    library = runs.compile_tree(tree, patched.workspace, [kernel])
    for case in cases.conversions(patched.formats["turbo4"]):
        if patched.host.record([case.operation])[0].dispatches[0].kernel == kernel:
            return runs.run_conversion(patched.host, library, case)
    raise AssertionError(kernel)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        pytest.param("(AT + 2u - 2u * pair) % 32", "(AT + 2u - 2u * (3 - pair)) % 32", id="pair"),
        pytest.param("book = radius >> 15;", "book = 0;", id="codebook"),
        pytest.param("uint(radius) << 28 >> behind", "0", id="start"),
    ],
)
def test_a_wrong_decoder_is_caught(patched: Patched, broken: Path, good: str, bad: str) -> None:
    breaks(broken, TURBO, good, bad)
    case = rows_of(patched, broken, "kernel_get_rows_turbo4")
    assert (case.ok, case.bit_equal) == (False, False)
    assert "of the result is" in case.wrong[0]


def test_a_wrong_stride_is_caught(patched: Patched, broken: Path) -> None:
    breaks(broken, TURBO, "dst + to * args.nb1 +", "dst + to * args.nb01 +")
    case = rows_of(patched, broken, "kernel_set_rows_f32_i64_turbo4")
    assert any(reason.startswith("out-of-bounds") and "ggml-metal-turbo.metal" in reason for reason in case.wrong)


def findings_of_attention(patched: Patched, tree: Path) -> set[str]:
    """What the harness finds in attention of 33 queries, from the sources at `tree`."""
    library = runs.compile_tree(tree, patched.workspace, ["kernel_flash_attn_ext_turbo_dk64_dv64"])
    posed = pose(Attention(k="turbo4", v="turbo4", dk=64, dv=64, queries=33), patched.formats)
    done = execute(patched.host, library, posed.operation, posed.operands, unwritten(4 * posed.expected.size))
    return {finding.kind for finding in done.findings}


def test_a_race_is_caught(patched: Patched, broken: Path) -> None:
    """Two simdgroups that decode into the same memory."""
    breaks(broken, METAL / "ggml-metal.metal", "+ 64 * simds) + 512 * simd;", "+ 64 * simds);")
    assert "race" in findings_of_attention(patched, broken)


def test_a_missing_barrier_is_caught(patched: Patched, broken: Path) -> None:
    """Queries that one simdgroup brings and another multiplies with."""
    barrier = "    threadgroup_barrier(mem_flags::mem_threadgroup);\n\n    // Four lanes"
    breaks(broken, METAL / "ggml-metal.metal", barrier, "\n    // Four lanes")
    assert findings_of_attention(patched, broken) & {"race", "uninitialised-threadgroup-read"}


def test_a_wrong_constant_of_the_host_is_caught(patched: Patched, broken: Path) -> None:
    """K decoded as the type of V."""
    breaks(
        broken,
        METAL / "ggml-metal-turbo.h",
        "kind(op->src[1]->type), TURBO_METAL_FC_K",
        "kind(op->src[2]->type), TURBO_METAL_FC_K",
    )
    host = build_host(broken, patched.config, patched.workspace)
    case = Attention(k="turbo4", v="turbo3", dk=64, dv=64)
    assert not runs.run_attention(host, patched.library, case, patched.formats).ok
    assert runs.run_attention(host, patched.library, replace(case, v="turbo4"), patched.formats).ok


def test_a_pipeline_is_not_shared_by_two_pairs(patched: Patched) -> None:
    pairs = [("q8_0", "turbo4"), ("q8_0", "turbo3"), ("turbo4", "turbo3")]
    operations = [pose(Attention(k=k, v=v, dk=64, dv=64), patched.formats).operation for k, v in pairs]
    constants = [recorded.dispatches[0].constants for recorded in patched.host.record(operations)]
    assert [(one["60000"], one["60001"]) for one in constants] == [(8, 3), (8, 2), (3, 2)]
