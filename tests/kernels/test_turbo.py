"""The reference kernels: formats, codebooks, quality, and what they do with bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolchain.series import manifest
from toolchain.stages import CacheType

from .conftest import Bytes, Floats, Kernels

TYPES = manifest.load().types
every_type = pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)


def plane(plane_bytes: Bytes) -> Bytes:
    """Bits (n, 64) of planes (n, 8): value j is bit j / 8 of byte j % 8."""
    return np.concatenate([plane_bytes >> bit & 1 for bit in range(8)], axis=1).astype(np.uint8)


def trellis(path: Bytes) -> Bytes:
    """Bits 0 and 1 of the indices (n, 64) from path bits (n, 64): the convolutional code, value by value."""
    order = [8 * (j % 8) + j // 8 for j in range(64)]
    position = np.argsort(order)  # of the values in the order of the trellis
    u = path[:, position]
    past = [np.roll(u, ago, axis=1) for ago in range(5)]
    low = past[1] ^ past[2] ^ past[3]
    high = past[0] ^ past[1] ^ past[4]
    return np.ascontiguousarray((low | high << 1)[:, order])


def indices(kind: CacheType, blocks: Bytes) -> Bytes:
    """The layout of ggml-turbo.h, written a second time: indices (n, 64) of blocks (n, bytes)."""
    low = trellis(plane(blocks[:, 2:10]))
    if kind.name == "turbo2":
        return np.asarray(low | plane(blocks[:, 10:]) << 2, dtype=np.uint8)
    qs = blocks[:, -16:]
    pairs = np.concatenate([qs >> shift & 3 for shift in (0, 2, 4, 6)], axis=1).astype(np.uint8)
    high = plane(blocks[:, 10:18]) if kind.name == "turbo4" else np.zeros_like(low)
    return np.asarray(low | pairs << 2 | high << 4, dtype=np.uint8)


def radii(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)


def snr_db(values: Floats, decoded: Floats) -> float:
    error = ((values.astype(np.float64) - decoded) ** 2).sum()
    return 10 * math.log10((values.astype(np.float64) ** 2).sum() / error)


@every_type
def test_decoding_is_radius_times_level(kernels: Kernels, kind: CacheType) -> None:
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (500, kind.bytes), dtype=np.uint8)
    blocks[:, 1] &= 0xBF  # a finite radius
    expected = radii(blocks) * kernels.levels(kind)[indices(kind, blocks)].astype(np.float32)
    assert np.array_equal(kernels.dequantize(kind, blocks), expected)
    levels, radius = kernels.levels_row(kind, blocks)
    assert np.array_equal(levels, kernels.levels(kind)[indices(kind, blocks)])
    assert np.array_equal(radius, radii(blocks))


@every_type
def test_codebooks_are_the_centroids_of_the_encoder(kernels: Kernels, kind: CacheType) -> None:
    """Lloyd's rule: every level is the mean of the scaled values that the encoder assigns to it, but for rounding."""
    levels = kernels.levels(kind).astype(np.float64)
    assert (np.diff(levels) > 0).all()
    assert np.array_equal(levels, -levels[::-1])
    assert np.ptp(np.diff(levels)) > 10  # not uniform
    values = np.random.default_rng(17).standard_normal((20000, 64)).astype(np.float32)
    blocks = kernels.quantize(kind, values)
    index, radius = indices(kind, blocks), np.broadcast_to(radii(blocks), values.shape).astype(np.float64)
    means = np.bincount(index.ravel(), (radius * values).ravel()) / np.bincount(index.ravel(), (radius**2).ravel())
    inner = slice(1, -1)  # the outermost levels take few values, and overload
    assert np.abs(means - levels)[inner].max() < 0.8
    assert np.abs(means - levels).max() < 1.5


@pytest.mark.parametrize(("name", "floor"), [("turbo4", 23.2), ("turbo3", 17.0), ("turbo2", 11.0)])
@pytest.mark.parametrize("seed", [7, 8, 9])
def test_quality_on_gaussian_data(kernels: Kernels, name: str, floor: float, seed: int) -> None:
    kind = next(kind for kind in TYPES if kind.name == name)
    values = np.random.default_rng(seed).standard_normal((4000, 64)).astype(np.float32)
    assert snr_db(values, kernels.dequantize(kind, kernels.quantize(kind, values))) > floor


@pytest.mark.parametrize(("name", "floor"), [("turbo4", 23.5), ("turbo3", 16.7), ("turbo2", 11.4)])
def test_quality_where_one_channel_outweighs_all_others(kernels: Kernels, name: str, floor: float) -> None:
    """Rotated, such values have nearly equal magnitudes, whose errors are too large for the encoder's 8 bits."""
    kind = next(kind for kind in TYPES if kind.name == name)
    values = np.random.default_rng(21).standard_normal((4000, 128)).astype(np.float32)
    values[:, 5] += 200
    values = values @ hadamard(128)
    blocks = kernels.quantize(kind, values.reshape(-1, 64))
    assert snr_db(values, kernels.dequantize(kind, blocks).reshape(values.shape)) > floor


def q4_0(values: Floats) -> Floats:
    """Values after q4_0: blocks of 32, FP16 scale such that the largest magnitude is -8."""
    blocks = values.reshape(-1, 32)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)
    scale = extreme / np.float32(-8)
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.clip(np.floor(np.where(scale == 0, 0, blocks / scale) + 8.5), 0, 15) - 8
    return np.asarray(codes * scale.astype(np.float16), dtype=np.float32).reshape(values.shape)


def hadamard(size: int) -> Floats:
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.kron(np.array([[1, 1], [1, -1]]), matrix)
    return np.asarray(matrix / math.sqrt(size), dtype=np.float32)


def difficult(name: str, seed: int) -> Floats:
    """Rows (4000, 128) of heads that are not Gaussian."""
    rng = np.random.default_rng(seed)
    if name.startswith("student"):
        return rng.standard_t(int(name.removeprefix("student")), (4000, 128)).astype(np.float32)
    values = rng.standard_normal((4000, 128)).astype(np.float32)
    if name == "outliers":
        values[:, rng.choice(128, 3, replace=False)] *= 20
    if name == "offset":
        values += rng.normal(0, 3, 128).astype(np.float32)
    return values


@pytest.mark.parametrize("data", ["student3", "student5", "outliers", "offset"])
@pytest.mark.parametrize("rotated", [True, False], ids=["rotated", "plain"])
def test_turbo4_is_no_worse_than_q4_0_on_difficult_data(kernels: Kernels, data: str, rotated: bool) -> None:
    values = difficult(data, 21) @ hadamard(128) if rotated else difficult(data, 21)
    kind = next(kind for kind in TYPES if kind.name == "turbo4")
    blocks = kernels.quantize(kind, values.reshape(-1, 64))
    assert snr_db(values, kernels.dequantize(kind, blocks).reshape(values.shape)) >= snr_db(values, q4_0(values))


def lloyd_max(count: int) -> Floats:
    """The best scalar codebook for N(0,1)."""
    sample = np.sort(np.random.default_rng(0).standard_normal(200_000))
    levels = np.quantile(sample, (np.arange(count) + 0.5) / count)
    for _ in range(200):
        cells = np.split(sample, np.searchsorted(sample, (levels[1:] + levels[:-1]) / 2))
        levels = np.array([cell.mean() for cell in cells])
    return levels.astype(np.float32)


@every_type
def test_trellis_and_search_beat_the_norm_and_the_nearest_level(kernels: Kernels, kind: CacheType) -> None:
    """Against the plain recipe, radius = norm and the nearest of 2^bits levels, also where the data is not Gaussian."""
    values = np.random.default_rng(3).standard_t(4, (2000, 64)).astype(np.float32)
    levels = lloyd_max(len(kernels.levels(kind)) // 2)
    radius = np.sqrt((values**2).mean(axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    nearest = np.abs(values[:, :, None] / radius[:, :, None] - levels).argmin(axis=2)
    plain = ((values - radius * levels[nearest]) ** 2).sum(axis=1)
    searched = ((values - kernels.dequantize(kind, kernels.quantize(kind, values))) ** 2).sum(axis=1)
    assert (searched <= plain).mean() > 0.99
    assert searched.sum() < 0.8 * plain.sum()


@every_type
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_input_decodes_to_finite_values(kernels: Kernels, kind: CacheType, data: st.DataObject) -> None:
    values = data.draw(hnp.arrays(np.float32, (1, 64), elements=st.floats(width=32)))
    blocks = kernels.quantize(kind, values)
    decoded = kernels.dequantize(kind, blocks)
    assert np.isfinite(decoded).all()
    assert np.isfinite(radii(blocks)).all()
    assert (radii(blocks) >= 0).all()


@every_type
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1e-30, 1e-12, math.nan])
def test_what_is_too_small_becomes_zero(kernels: Kernels, kind: CacheType, value: float) -> None:
    blocks = kernels.quantize(kind, np.full((1, 64), value, dtype=np.float32))
    assert not blocks.any()
    assert not kernels.dequantize(kind, blocks).any()


@every_type
def test_nan_counts_as_zero_and_infinity_saturates(kernels: Kernels, kind: CacheType) -> None:
    values = np.random.default_rng(5).standard_normal((1, 64)).astype(np.float32)
    values[0, 3] = np.nan
    zeroed = np.nan_to_num(values, nan=0.0)
    assert np.array_equal(kernels.quantize(kind, values), kernels.quantize(kind, zeroed))
    decoded = kernels.dequantize(kind, kernels.quantize(kind, np.full((1, 64), -np.inf, dtype=np.float32)))
    assert (decoded < -1e6).all()


@every_type
def test_scaling_by_a_power_of_two_scales_the_result(kernels: Kernels, kind: CacheType) -> None:
    values = np.random.default_rng(6).standard_normal((50, 64)).astype(np.float32)
    one = kernels.dequantize(kind, kernels.quantize(kind, values))
    assert np.array_equal(kernels.dequantize(kind, kernels.quantize(kind, values * 64)), one * 64)


@every_type
@pytest.mark.parametrize("blocks_per_row", [1, 2, 9])
def test_vec_dot_is_the_dot_product_of_what_is_decoded(kernels: Kernels, kind: CacheType, blocks_per_row: int) -> None:
    rng = np.random.default_rng(blocks_per_row)
    blocks = kernels.quantize(kind, rng.standard_normal((blocks_per_row, 64)).astype(np.float32))
    q8 = np.empty((2 * blocks_per_row, 34), dtype=np.uint8)
    scales = rng.uniform(0.001, 0.02, (2 * blocks_per_row, 1)).astype(np.float16)
    codes = rng.integers(-127, 128, (2 * blocks_per_row, 32), dtype=np.int8)
    q8[:, :2], q8[:, 2:] = scales.view(np.uint8), codes.view(np.uint8)
    query = (scales.astype(np.float64) * codes).reshape(-1)
    key = kernels.dequantize(kind, blocks).astype(np.float64).reshape(-1)
    size = np.abs(query * key).sum()
    assert abs(kernels.vec_dot(kind, blocks, q8) - query @ key) <= 1e-6 * size


def test_half_precision_is_numpys(kernels: Kernels) -> None:
    halves = np.arange(65536, dtype=np.uint16)
    values = halves.view(np.float16).astype(np.float32)
    for half, value in zip(halves.tolist(), values.tolist(), strict=True):
        found = kernels.half_to_float(half)
        assert found == value or (math.isnan(found) and math.isnan(value))
        if not math.isnan(value):
            assert kernels.float_to_half(value) == half


@settings(max_examples=200, deadline=None)
@given(value=st.floats(width=32, allow_nan=False))
def test_rounding_to_half_is_numpys(kernels: Kernels, value: float) -> None:
    with np.errstate(over="ignore"):
        assert kernels.float_to_half(value) == int(np.float32(value).astype(np.float16).view(np.uint16))
