"""The reference kernels: formats, codebooks, quality, and what they do with bad input."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
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


def trellis(blocks: Bytes) -> Bytes:
    """Bits 0 and 1 of the indices (n, 64): the convolutional code over the path, which the radius begins."""
    order = [8 * (j % 8) + j // 8 for j in range(64)]
    before = np.stack([0 * blocks[:, 0], *(blocks[:, 0] >> bit & 1 for bit in range(4))], axis=1)
    u = np.concatenate([before, plane(blocks[:, 2:10])[:, np.argsort(order)]], axis=1)
    ago = [u[:, 5 - steps : 69 - steps] for steps in range(6)]
    low = ago[1] ^ ago[2] ^ ago[4]
    high = ago[0] ^ ago[2] ^ ago[5]
    return np.ascontiguousarray((low | high << 1)[:, order])


def indices(kind: CacheType, blocks: Bytes) -> Bytes:
    """The layout of ggml-turbo.h, written a second time: indices (n, 64) of blocks (n, bytes)."""
    low = trellis(blocks)
    count = kind.bytes // 8 - 1  # of raw bits: beside them a block has two bytes of radius, eight of path
    high, pairs = np.zeros_like(low), blocks[:, 10:]
    if count % 2:
        high, pairs = np.asarray(plane(blocks[:, 10:18]) << (count - 1), dtype=np.uint8), blocks[:, 18:]
    for pair in range(count // 2):
        four = pairs[:, 16 * pair : 16 * (pair + 1)]
        high |= np.concatenate([four >> shift & 3 for shift in (0, 2, 4, 6)], axis=1).astype(np.uint8) << 2 * pair
    return np.asarray(low | high << 2, dtype=np.uint8)


def radii(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)


def levels(kernels: Kernels, kind: CacheType, blocks: Bytes) -> npt.NDArray[np.int8]:
    """Levels (n, 64): the first codebook's, or with a negative radius the second's."""
    found: npt.NDArray[np.int8] = kernels.levels(kind)[blocks[:, 1:2] >> 7, indices(kind, blocks)]
    return found


def snr_db(values: Floats, decoded: Floats) -> float:
    error = ((values.astype(np.float64) - decoded) ** 2).sum()
    return 10 * math.log10((values.astype(np.float64) ** 2).sum() / error)


@pytest.mark.slow
@every_type
def test_decoding_is_radius_times_level(kernels: Kernels, kind: CacheType) -> None:
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (500, kind.bytes), dtype=np.uint8)
    blocks[:, 1] &= 0xBF  # a finite radius
    expected = levels(kernels, kind, blocks)
    decoded, scale = kernels.levels_row(kind, blocks)
    assert np.array_equal(decoded, expected)
    assert np.array_equal(scale, radii(blocks) / 128)
    assert np.array_equal(kernels.dequantize(kind, blocks), radii(blocks) / 128 * expected.astype(np.float32))


@every_type
def test_the_first_codebook_is_the_centroids_of_the_encoder(kernels: Kernels, kind: CacheType) -> None:
    """Lloyd's rule: every level is the mean of the scaled values that the encoder assigns to it, but for rounding."""
    codebook = kernels.levels(kind)[0].astype(np.float64)
    assert (np.diff(codebook) > 0).all()
    assert np.array_equal(codebook, -codebook[::-1])
    assert np.ptp(np.diff(codebook)) > 10  # not uniform
    values = np.random.default_rng(17).standard_normal((20000, 64)).astype(np.float32)
    blocks = kernels.quantize(kind, values)
    first = radii(blocks)[:, 0] > 0
    assert first.mean() > 0.995
    values, blocks = values[first], blocks[first]
    index, scale = indices(kind, blocks), np.broadcast_to(radii(blocks) / 128, values.shape).astype(np.float64)
    means = np.bincount(index.ravel(), (scale * values).ravel()) / np.bincount(index.ravel(), (scale**2).ravel())
    inner = slice(1, -1)  # the outermost levels take few values, and overload
    assert np.abs(means - codebook)[inner].max() < 0.8
    assert np.abs(means - codebook).max() < 1.5


@every_type
def test_the_second_codebook_has_zero_and_peak_for_every_state(kernels: Kernels, kind: CacheType) -> None:
    """The two branches from a state reach either both even subsets or both odd ones."""
    codebook = kernels.levels(kind)[1].astype(np.int64)
    assert (np.diff(codebook) >= 0).all()
    assert np.array_equal(codebook, -codebook[::-1])
    for wanted in (0, codebook[-1], codebook[0]):
        assert set(np.flatnonzero(codebook == wanted) % 2) == {0, 1}, wanted


@every_type
def test_the_radius_is_the_nearest_to_the_best_that_the_path_allows(kernels: Kernels, kind: CacheType) -> None:
    """Its low four bits are the start of the path, so it is at most 8 units of FP16 from the least squares."""
    rng = np.random.default_rng(23)
    values = rng.standard_normal((4000, 64)) * np.exp2(rng.uniform(-8, 8, (4000, 1)))
    values[:100] = rng.choice([-1, 1], (100, 64)) * np.exp2(rng.uniform(-8, 8, (100, 1)))
    blocks = kernels.quantize(kind, values.astype(np.float32))
    chosen = levels(kernels, kind, blocks).astype(np.float64)
    best = 128 * (values * chosen).sum(axis=1) / (chosen**2).sum(axis=1)
    stored = radii(blocks)[:, 0].astype(np.float16).view(np.uint16).astype(int)
    assert np.abs(stored - best.astype(np.float16).view(np.uint16)).max() <= 9  # the encoder rounds values to 16 bits
    assert len(set(stored & 15)) == 16
    assert (stored[:100] >> 15).all()


@pytest.mark.parametrize(("name", "floor"), [("turbo5", 29.4), ("turbo4", 23.55), ("turbo3", 17.38), ("turbo2", 11.3)])
@pytest.mark.parametrize("seed", [7, 8, 9])
def test_quality_on_gaussian_data(kernels: Kernels, name: str, floor: float, seed: int) -> None:
    kind = next(kind for kind in TYPES if kind.name == name)
    values = np.random.default_rng(seed).standard_normal((4000, 64)).astype(np.float32)
    assert snr_db(values, kernels.dequantize(kind, kernels.quantize(kind, values))) > floor


@every_type
def test_equal_magnitudes_stay_equal(kernels: Kernels, kind: CacheType) -> None:
    """Only the radius is off, by its grain: 32 to the octave, or half of that."""
    rng = np.random.default_rng(24)
    values = rng.choice([-1, 1], (500, 64)) * np.exp2(rng.uniform(-10, 10, (500, 1)))
    decoded = kernels.dequantize(kind, kernels.quantize(kind, values.astype(np.float32)))
    assert np.array_equal(np.sign(decoded), np.sign(values))
    assert not np.ptp(np.abs(decoded), axis=1).any()
    assert np.abs(decoded / values - 1).max() < 1 / 60


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
    """Rows (2000, 128) of heads that are not Gaussian; x20@5 has channel 5 multiplied by 20, +20@5 has 20 added."""
    rng = np.random.default_rng(seed)
    if name.startswith("student"):
        return rng.standard_t(int(name.removeprefix("student")), (2000, 128)).astype(np.float32)
    values = rng.standard_normal((2000, 128)).astype(np.float32)
    if name == "outliers":
        values[:, rng.choice(128, 3, replace=False)] *= 20
    elif name == "offset":
        values += rng.normal(0, 3, 128).astype(np.float32)
    else:
        size, *channels = name.split("@")
        where = [int(channel) for channel in channels]
        if size[0] == "x":
            values[:, where] *= int(size[1:])
        else:
            values[:, where] += int(size)
    return values


def assert_no_worse_than_q4_0(kernels: Kernels, values: Floats) -> None:
    kind = next(kind for kind in TYPES if kind.name == "turbo4")
    blocks = kernels.quantize(kind, values.reshape(-1, 64))
    assert snr_db(values, kernels.dequantize(kind, blocks).reshape(values.shape)) >= snr_db(values, q4_0(values))


@pytest.mark.parametrize("data", ["student3", "student5", "outliers", "offset"])
@pytest.mark.parametrize("rotated", [True, False], ids=["rotated", "plain"])
def test_turbo4_is_no_worse_than_q4_0_on_difficult_data(kernels: Kernels, data: str, rotated: bool) -> None:
    values = difficult(data, 21)
    assert_no_worse_than_q4_0(kernels, values @ hadamard(128) if rotated else values)


ONE = [f"{size}@{channel}" for size in ("x20", "x50", "x100", "+50", "+200", "+1000") for channel in (0, 5, 96)]
TWO = ["x50@3@77", "x100@3@77", "+50@3@77", "+100@3@77"]


@pytest.mark.slow
@pytest.mark.parametrize("data", [*ONE, *TWO])
def test_turbo4_is_no_worse_than_q4_0_where_a_channel_outweighs_all_others(kernels: Kernels, data: str) -> None:
    """Rotated, the values of a block have nearly one magnitude, or those of two channels nearly one of a few."""
    assert_no_worse_than_q4_0(kernels, difficult(data, 22) @ hadamard(128))


@pytest.mark.parametrize(("name", "floor"), [("turbo5", 33.0), ("turbo4", 29.4), ("turbo3", 26.0), ("turbo2", 24.8)])
def test_quality_where_one_channel_outweighs_all_others(kernels: Kernels, name: str, floor: float) -> None:
    kind = next(kind for kind in TYPES if kind.name == name)
    values = difficult("+200@5", 21) @ hadamard(128)
    blocks = kernels.quantize(kind, values.reshape(-1, 64))
    assert snr_db(values, kernels.dequantize(kind, blocks).reshape(values.shape)) > floor


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
    codebook = lloyd_max(kernels.levels(kind).shape[1] // 2)
    radius = np.sqrt((values**2).mean(axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    nearest = np.abs(values[:, :, None] / radius[:, :, None] - codebook).argmin(axis=2)
    plain = ((values - radius * codebook[nearest]) ** 2).sum(axis=1)
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
    assert blocks.any() or not decoded.any()
    assert radii(blocks)[0, 0] != 0 or not blocks.any()


@every_type
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1e-30, 1e-12, 0.999 * 2**-18, math.nan])
def test_what_is_too_small_becomes_zero(kernels: Kernels, kind: CacheType, value: float) -> None:
    blocks = kernels.quantize(kind, np.full((1, 64), value, dtype=np.float32))
    assert not blocks.any()
    assert not kernels.dequantize(kind, blocks).any()


@every_type
def test_magnitudes_at_both_ends_of_the_range(kernels: Kernels, kind: CacheType) -> None:
    """From 2^-18 to about 50,000: what is larger saturates, and infinity is no exception."""
    least, most, beyond = (np.full((1, 64), size, dtype=np.float32) for size in (2**-18, 65504, np.inf))
    assert np.abs(kernels.dequantize(kind, kernels.quantize(kind, least)) / least - 1).max() < 0.25
    assert np.array_equal(kernels.quantize(kind, beyond), kernels.quantize(kind, most))
    decoded = kernels.dequantize(kind, kernels.quantize(kind, -beyond))
    assert (decoded < -4.5e4).all()
    assert (decoded >= -65504).all()


@every_type
def test_nan_counts_as_zero(kernels: Kernels, kind: CacheType) -> None:
    values = np.random.default_rng(5).standard_normal((1, 64)).astype(np.float32)
    values[0, 3] = np.nan
    zeroed = np.nan_to_num(values, nan=0.0)
    assert np.array_equal(kernels.quantize(kind, values), kernels.quantize(kind, zeroed))


@every_type
@pytest.mark.parametrize("shift", [-12, -1, 6, 12])
def test_scaling_by_a_power_of_two_scales_the_result(kernels: Kernels, kind: CacheType, shift: int) -> None:
    values = np.random.default_rng(6).standard_normal((50, 64)).astype(np.float32)
    values[:5] = np.sign(values[:5])
    one = kernels.dequantize(kind, kernels.quantize(kind, values))
    scaled = kernels.dequantize(kind, kernels.quantize(kind, np.ldexp(values, shift)))
    assert np.array_equal(scaled, np.ldexp(one, shift))


@every_type
@pytest.mark.parametrize("blocks_per_row", [1, 2, 9])
def test_vec_dot_is_the_dot_product_of_what_is_decoded(kernels: Kernels, kind: CacheType, blocks_per_row: int) -> None:
    rng = np.random.default_rng(blocks_per_row)
    values = rng.standard_normal((blocks_per_row, 64)).astype(np.float32)
    values[1::2] = np.sign(values[1::2])
    blocks = kernels.quantize(kind, values)
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
