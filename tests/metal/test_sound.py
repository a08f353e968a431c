"""Kernels that are right: their results, what is counted of them, and that nothing is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from toolchain.metal import Library, compile

ARGS = np.dtype([("n", "i4"), ("scale", "f4")])


def test_kernels_and_function_constants_are_listed(sound: Library) -> None:
    assert {"scale", "product_f32", "product_f16", "row_sum"} <= set(sound.kernels)
    assert "product" not in sound.kernels
    assert sound.constants == {"FC_row": 42, "FC_twice": 43}


@pytest.mark.parametrize("constants", [{}, {"FC_row": 2}, {42: 3, "FC_twice": True}])
def test_function_constants_reach_the_kernel(sound: Library, constants: dict[int | str, int]) -> None:
    src = np.arange(40, dtype="f4").reshape(10, 4)
    report = sound.run(
        "scale",
        [np.array((10, 3.0), ARGS), src, np.zeros_like(src)],
        grid=(1,),
        threads=(32,),
        function_constants=constants,
    )
    assert report.ok
    row = constants.get("FC_row", constants.get(42))
    wanted = src * 3 + (row + 0.5 if row is not None else 0)
    np.testing.assert_array_equal(report.buffers[2], wanted * (2 if "FC_twice" in constants else 1))
    assert not src[0, 0], "what was bound stays as it was"


@pytest.mark.slow
def test_loads_and_operations_are_counted(cache: Path) -> None:
    src = np.ones((10, 4), "f4")
    cases: list[tuple[dict[int | str, bool], int]] = [({"FC_twice": False}, 1), ({43: True}, 2)]
    for fixed, products in cases:
        library = compile(Path(__file__).with_name("sound.metal"), kernels=["scale"], constants=fixed, cache=cache)
        assert library.kernels == ("scale",)
        assert library.constants == {"FC_row": 42}, "the fixed one is no longer asked for"
        report = library.run("scale", [np.array((10, 3.0), ARGS), src, src], grid=(1,), threads=(32,))
        assert report.ok
        assert report.buffers[2][0, 0] == 3 * products
        device = report.traffic["device"]
        assert (device.loads, device.load_bytes, device.stores, device.store_bytes) == (10, 160, 10, 160)
        args, read, written = report.buffer_traffic
        assert (read.loads, read.load_bytes, read.stores, read.read_once) == (10, 160, 0, 160)
        assert (written.loads, written.stores, written.store_bytes, written.read_once) == (0, 10, 160, 0)
        assert args.loads >= 32 > args.read_once == 8, "each thread reads the arguments, and the threadgroup once"
        assert report.threads == 32
        counted = {int(line.rsplit(":", 1)[1]): n.get("float", 0) for line, n in report.lines.items()}
        assert counted.get(_line("* args.scale"), 0) == 40, "one product for each component of ten vectors"
        assert counted.get(_line("v *= 2.h"), 0) == 40 * (products - 1)


def test_packed_vectors_become_vectors_of_any_type(write: Callable[[str], Path], cache: Path) -> None:
    path = write("""
        kernel void widen(device const char * bytes, device float4 * out, uint i [[thread_index_in_threadgroup]]) {
            device const packed_char4 * fours = (device const packed_char4 *) (bytes + 1);
            device const packed_char3 * threes = (device const packed_char3 *) (bytes + 1);
            out[2 * i] = float4(fours[i]) * 0.5f;
            out[2 * i + 1] = float4(float3(packed_float3(float3(threes[i]))), 1.0f) + (float4) half4(fours[i]);
        }""")
    values = np.arange(-64, 65, dtype="i1")
    report = compile(path, cache=cache).run("widen", [values, np.zeros((32, 2, 4), "f4")], grid=(1,), threads=(16,))
    fours = values[1:65].reshape(16, 4).astype("f4")
    threes = np.concatenate([values[1:49].reshape(16, 3).astype("f4"), np.ones((16, 1), "f4")], axis=1)
    np.testing.assert_array_equal(report.buffers[1][:16], np.stack([fours * 0.5, threes + fours], axis=1))
    assert report.ok


def test_types_are_known_before_the_library_is_included(tmp_path: Path, cache: Path) -> None:
    """As by Apple's compiler: llama.cpp's shared header comes first where each kernel file is a library."""
    path = tmp_path / "early.metal"
    path.write_text(
        "typedef struct { int32_t n; uint64_t nb; float4 scale; } arguments;\n#include <metal_stdlib>\n"
        "kernel void f(constant arguments & a, device float * x) { x[0] = metal::min(a.scale.y, (float) a.n); }\n"
    )
    arguments = np.array((3, 0, (0, 2, 0, 0)), np.dtype({"names": ["n", "nb", "s"], "formats": ["i4", "u8", ("f4", 4)],
                         "offsets": [0, 8, 16], "itemsize": 32}))  # fmt: skip
    report = compile(path, cache=cache).run("f", [arguments, np.zeros(1, "f4")], grid=(1,), threads=(1,))
    assert report.buffers[1][0] == 2


def test_reads_are_counted_by_buffer(write: Callable[[str], Path], cache: Path) -> None:
    """Threads that read the same bytes, and threadgroups that do."""
    path = write("""
        kernel void look(device const float * one, device const half4 * many, device float * out, device atomic_int * n,
                         uint i [[thread_position_in_grid]], uint at [[thread_index_in_threadgroup]]) {
            out[i] = one[0] + (float) many[at / 2].x;
            atomic_fetch_add_explicit(n, 1, memory_order_relaxed);
        }""")
    buffers = [np.ones(8, "f4"), np.ones((32, 4), "f2"), np.zeros(6400, "f4"), np.zeros(1, "i4")]
    report = compile(path, cache=cache).run("look", buffers, grid=(100,), threads=(64,))
    one, many, out, n = report.buffer_traffic
    assert (one.loads, one.load_bytes, one.read_once) == (6400, 4 * 6400, 4 * 100)
    assert (many.loads, many.read_once) == (6400, many.load_bytes // 2)
    assert (out.stores, out.store_bytes, out.read_once) == (6400, 4 * 6400, 0)
    assert (n.atomics, n.loads, n.read_once) == (report.traffic["device"].atomics, 0, 0)
    assert sum(buffer.loads for buffer in report.buffer_traffic) == report.traffic["device"].loads


def test_what_a_gpu_does_without_an_operation_is_not_counted(write: Callable[[str], Path], cache: Path) -> None:
    """Words joined out of halves that are loaded together, and numbers that are widened for an address alone."""
    path = write("""
        kernel void look(device const ushort * words, constant uint * table, device uint * out,
                         uint i [[thread_index_in_threadgroup]]) {
            const uint word = as_type<uint>(ushort2(*(device const packed_ushort2 *) (words + i)));
            out[i] = table[rotate(word, i) & 31];
        }""")
    words, table, out = np.arange(40, dtype="u2") * 999, np.arange(32, dtype="u4"), np.zeros(32, "u4")
    report = compile(path, cache=cache).run("look", [words, table, out], grid=(1,), threads=(32,))
    both = (words[:-1].astype("u8") | words[1:].astype("u8") << 16)[:32] << np.arange(32, dtype="u8")
    np.testing.assert_array_equal(report.buffers[2], (both | both >> 32) & 31)
    assert report.operations == {"integer": 2 * 32}


def _line(text: str) -> int:
    lines = Path(__file__).with_name("sound.metal").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.mark.parametrize(("name", "dtype"), [("product_f32", "f4"), ("product_f16", "f2")])
def test_matrices(sound: Library, name: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(-8, 8, (3, 8, 8)).astype(dtype) for _ in range(2))
    report = sound.run(name, [a, b, np.zeros((3, 8, 8), "f4")], grid=(1,), threads=(96,))
    assert report.ok
    np.testing.assert_array_equal(report.buffers[2], a.astype("f4") @ b.astype("f4").transpose(0, 2, 1) + 1)
    assert report.meetings == {"matrix load": 6, "matrix multiply": 3, "matrix store": 3}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_sum_over_simdgroups(sound: Library, workers: int) -> None:
    src = np.arange(50 * 128, dtype="f4").reshape(50, 128) % 64
    report = sound.run(
        "row_sum",
        [src, np.zeros(50, "f4"), np.zeros(1, "i4")],
        grid=(50,),
        threads=(128,),
        threadgroup_bytes=[128],
        workers=workers,
    )
    assert report.ok
    np.testing.assert_array_equal(report.buffers[1], src.sum(1) / 4)
    assert report.buffers[2][0] == 50
    assert report.meetings == {"simd reduction": 200, "threadgroup barrier": 50}
    assert report.traffic["threadgroup"].loads == 50 * 8
    assert report.traffic["device"].atomics >= 50


def test_exchanges_between_lanes(sound: Library) -> None:
    x = np.random.default_rng(2).integers(1, 1000, 32).astype("i4")
    report = sound.run("exchanges", [x, np.zeros((32, 16), "i4")], grid=(1,), threads=(32,))
    assert report.ok
    lane = np.arange(32)
    even = int(((x % 2 == 0) << lane.astype("u8")).sum())
    wanted = np.stack(
        [
            np.full(32, x.sum()),
            np.full(32, x.max()),
            np.full(32, x.min()),
            np.cumsum(x),
            np.cumsum(x) - x,
            x[31 - lane],
            x[lane ^ 5],
            np.where(lane + 3 < 32, x[(lane + 3) % 32], x),
            np.where(lane >= 3, x[lane - 3], x),
            np.full(32, x[7]),
            np.full(32, np.array(even, "u4").view("i4")),
            np.full(32, 1),
            np.full(32, 1),
            np.full(32, np.bitwise_and.reduce(x)),
            np.full(32, np.bitwise_or.reduce(x)),
            np.full(32, np.bitwise_xor.reduce(x)),
        ],
        axis=1,
    )
    np.testing.assert_array_equal(report.buffers[1], wanted)


def test_lanes_that_have_ended_take_no_part(sound: Library) -> None:
    report = sound.run("some_lanes", [np.zeros(10, "f4")], grid=(1,), threads=(32,))
    assert report.ok
    assert report.buffers[0].tolist() == [10.0] * 10


def test_language(sound: Library) -> None:
    packed = np.arange(6, dtype="f4")
    brains = np.array([0, 0x4049], "u2")
    report = sound.run("language", [np.zeros(21, "f4"), packed, brains], grid=(1,), threads=(1,))
    assert report.ok
    half = np.float16(2) / np.float16(3)
    wanted = [2, 1, 14, 16, half, 2048, 3, 3, np.pi, 8 + 31 + 3, 4001, 2, -1 + 3 + 0.25, -100 + 10 + 2, 345]
    wanted += [np.array(0x40490000, "u4").view("f4"), np.float32(0.1) + np.float32(0.2), 0x56, 0, 2 + 3, 1 + 4]
    np.testing.assert_array_equal(report.buffers[0], np.array(wanted, "f4"))


def test_positions_in_three_dimensions(sound: Library) -> None:
    report = sound.run("grid", [np.zeros((6, 4, 8), "u4")], grid=(2, 2, 3), threads=(4, 2, 2))
    assert report.ok
    z, y, x = np.indices((6, 4, 8))
    np.testing.assert_array_equal(report.buffers[0], x + 100 * y + 10000 * z + 1000000)
