"""Our kernels on the patched miniature, by its own host code: right as they are, and caught when they are broken."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.core.cachetypes.table import own
from toolchain.core.console import Console
from toolchain.metal import cases, runs
from toolchain.metal.attention import Attention, pose
from toolchain.metal.execute import execute, unwritten
from toolchain.metal.host import METAL, Host, Operation, Tensor, build_host
from toolchain.metal.results import Case
from toolchain.series import manifest

from .conftest import Patched, compiled

pytestmark = pytest.mark.slow

SOURCE, OPS = METAL / "ggml-metal-turbo-source.h", METAL / "ggml-metal-turbo-ops.h"


def test_every_case_passes(patched: Patched) -> None:
    ran = runs.run_tree(patched.tree, manifest.load(), patched.config, patched.workspace, Console(json=True))
    assert [case for case in ran.cases if not case.ok] == []
    assert ran.passed == len(ran.cases) > 100
    ours = [case for case in ran.cases if case.kernel.startswith("kernel_turbo_attention")]
    assert all(case.upstream == () for case in ours), "no finding is excused in our own kernels"
    for kernel in ("few", "many"):
        sizes = {case.head_size for case in ours if f"_{kernel}_" in case.kernel}
        assert sizes == {f"{dk}/{dv}" for dk, dv in cases.SIZES}
        for head in (64, 128):
            variants = {case.kernel.rsplit("_", 1)[-1] for case in ours if f"_{kernel}_dk{head}_" in case.kernel}
            assert variants == {"rows1", "rows2"}
    assert {case.type for case in ours} == {"/".join(pair) for pair in cases.pairs([kind.name for kind in own()])}


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from([kind.name for kind in own()]),
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
    known = patched.library.known()
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
        assert recorded.claimed == ((dk, dv) in cases.SIZES), (k, v, dk, dv)
        assert all((dispatch.library, dispatch.kernel) in known for dispatch in recorded.dispatches)
        assert all(dispatch.library for dispatch in recorded.dispatches), "a kernel of the backend's own"
    f32 = Tensor(type="f32", ne=(64, 1), nb=(4, 256))
    turbo = Tensor(type="turbo4", ne=(64, 1), nb=(34, 34))
    product = Operation(name="MUL_MAT", result=Tensor(type="f32", ne=(1, 1), nb=(4, 4)), operands=(turbo, f32))
    again = Operation(name="CPY", result=turbo, operands=(turbo,))
    assert [answer.claimed for answer in patched.host.record([product, again])] == [False, False]


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
    host = build_host(tree, patched.config, patched.workspace)
    library = compiled(tree, host, patched.workspace)
    for case in cases.conversions(patched.formats["turbo4"]):
        if host.record([case.operation])[0].dispatches[0].kernel == kernel:
            return runs.run_conversion(host, library, case)
    raise AssertionError(kernel)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        pytest.param("(AT + 2u - 2u * pair) % 32", "(AT + 2u - 2u * (3 - pair)) % 32", id="pair"),
        pytest.param("book = radius >> 15;", "book = 0;", id="codebook"),
        pytest.param("<< (28 - 12 * side)", "<< 28 * side", id="start"),
    ],
)
def test_a_wrong_decoder_is_caught(patched: Patched, broken: Path, good: str, bad: str) -> None:
    breaks(broken, SOURCE, good, bad)
    case = rows_of(patched, broken, "kernel_turbo_get_rows_turbo4")
    assert (case.ok, case.bit_equal) == (False, False)
    assert "of the result is" in case.wrong[0]


def test_a_wrong_stride_is_caught(patched: Patched, broken: Path) -> None:
    breaks(broken, SOURCE, "(to + row * args.to1 +", "(to + row * args.from1 +")
    case = rows_of(patched, broken, "kernel_turbo_set_rows_i64_turbo4")
    assert any(reason.startswith("out-of-bounds") and "ggml-metal-turbo" in reason for reason in case.wrong)


def findings_of_attention(patched: Patched, tree: Path, case: Attention) -> set[str]:
    """What the harness finds in attention, from the sources at `tree`."""
    host = build_host(tree, patched.config, patched.workspace)
    posed = pose(case, patched.formats)
    library = compiled(tree, host, patched.workspace)
    done = execute(host, library, posed.operation, posed.operands, unwritten(4 * posed.expected.size))
    return {finding.kind for finding in done.findings}


PROMPT = Attention(k="turbo4", v="turbo4", dk=64, dv=64, queries=33)
TOKEN = Attention(k="turbo4", v="turbo4", dk=64, dv=64, positions=200)


@pytest.mark.parametrize(
    ("case", "good", "bad"),
    [
        pytest.param(
            PROMPT,
            "threadgroup_barrier(mem_flags::mem_threadgroup);\n        const bool needed",
            "const bool needed",
            id="before a tile is overwritten",
        ),
        pytest.param(
            PROMPT,
            "        threadgroup_barrier(mem_flags::mem_threadgroup);\n\n        float2 scores",
            "\n        float2 scores",
            id="before a tile is read",
        ),
        pytest.param(PROMPT, "V_STRIDE>(FC_turbo_v, v, args.v1, first, last, tile + K_SIZE, thread_, threads)",
                     "V_STRIDE>(FC_turbo_v, v, args.v1, first, last, tile, thread_, threads)", id="V over K"),
        pytest.param(TOKEN, "        threadgroup_barrier(mem_flags::mem_threadgroup);\n        if (stripe != turn)",
                     "        if (stripe != turn)", id="before simdgroups are joined"),
    ],
)  # fmt: skip
def test_a_race_is_caught(patched: Patched, broken: Path, case: Attention, good: str, bad: str) -> None:
    breaks(broken, SOURCE, good, bad)
    assert findings_of_attention(patched, broken, case) & {"race", "uninitialised-threadgroup-read"}


def test_a_wrong_constant_of_the_host_is_caught(patched: Patched, broken: Path) -> None:
    """K decoded as the type of V."""
    breaks(broken, OPS, "plan.kernel, turbo_kind(op->src[1]->type)", "plan.kernel, turbo_kind(op->src[2]->type)")
    host = build_host(broken, patched.config, patched.workspace)
    case = Attention(k="turbo4", v="turbo3", dk=64, dv=64)
    assert not runs.run_attention(host, patched.library, case, patched.formats).ok
    assert runs.run_attention(host, patched.library, replace(case, v="turbo4"), patched.formats).ok


def test_a_pipeline_is_not_shared_by_two_pairs(patched: Patched) -> None:
    pairs = [("q8_0", "turbo4"), ("q8_0", "turbo3"), ("turbo4", "turbo3")]
    operations = [pose(Attention(k=k, v=v, dk=64, dv=64), patched.formats).operation for k, v in pairs]
    constants = [recorded.dispatches[0].constants for recorded in patched.host.record(operations)]
    assert [(one["60000"], one["60001"]) for one in constants] == [(8, 3), (8, 2), (3, 2)]


@pytest.mark.parametrize(
    ("limits", "claimed", "said"),
    [
        ({}, True, ""),
        ({"RECORDER_WITHOUT_MATRICES": "1"}, False, "has no SIMD-group matrices"),
        ({"RECORDER_SOURCE_FAILS": "1"}, False, "the kernels do not compile (see above)"),
        ({"RECORDER_MAX_THREADS": "64"}, False, ""),
        ({"RECORDER_MAX_BUFFER": "1000"}, False, ""),
    ],
)
def test_a_device_that_can_do_less(patched: Patched, limits: dict[str, str], claimed: bool, said: str) -> None:
    """The host says no, once and why, and goes on."""
    host = Host(patched.host.program, limits)
    case = Attention(k="turbo4", v="turbo4", dk=64, dv=64, positions=4096)
    asked = [pose(case, patched.formats).operation] * 3
    assert [answer.claimed for answer in host.record(asked)] == [claimed] * 3
    assert host.log(asked).count("ggml_metal_turbo:") == bool(said)
    assert said in host.log(asked)


def test_fewer_threads_take_fewer_rows(patched: Patched) -> None:
    """A GPU that has registers for four simdgroups of a kernel gets more threadgroups, and the same result."""
    host = Host(patched.host.program, {"RECORDER_MAX_THREADS": "128"})
    case = replace(PROMPT, heads=4)
    assert runs.run_attention(host, patched.library, case, patched.formats).ok
    operation = pose(case, patched.formats).operation
    groups = [one.record([operation])[0].dispatches[0].groups[1] for one in (patched.host, host)]
    assert groups == [2, 5]


def test_an_operand_of_later_upstream_is_not_claimed(patched: Patched) -> None:
    """Sinks are the last operand that these kernels know."""
    operation = pose(PROMPT, patched.formats).operation
    wrong = [
        replace(operation, operands=(*operation.operands[:3], Tensor(type="f32", ne=(45, 33), nb=(4, 180)), None)),
        replace(operation, operands=(*operation.operands[:3], Tensor(type="f16", ne=(45, 20), nb=(2, 90)), None)),
    ]
    assert [answer.claimed for answer in patched.host.record([operation, *wrong])] == [True, False, False]


@pytest.mark.parametrize("case", [PROMPT, TOKEN], ids=["prompt", "token"])
def test_queries_beyond_a_half_are_no_infinities(patched: Patched, case: Attention) -> None:
    """Scores of infinity less infinity would make a whole row of the result no number."""
    posed = pose(case, patched.formats)
    q = posed.operands[0]
    assert q is not None
    operands = ((q.view(np.float32) * 1e7).view(np.uint8), *posed.operands[1:])
    done = execute(patched.host, patched.library, posed.operation, operands, unwritten(4 * posed.expected.size))
    assert np.all(np.isfinite(done.result.view(np.float32)))
    assert done.findings == ()
