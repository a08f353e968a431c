"""The reference types against a decoder-side view of their formats, written value by value."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.build.quantizers import Floats
from toolchain.core.errors import ConfigError
from toolchain.models.quality import references
from toolchain.models.quality.codec import Codec
from toolchain.models.quality.measure import compare

floats = st.floats(-1e4, 1e4, width=32)
block = st.lists(floats, min_size=32, max_size=32).map(lambda values: np.array(values, dtype=np.float32))


def _half(value: float) -> float:
    return float(struct.unpack("<e", struct.pack("<e", value))[0])


def _f32(value: float) -> float:
    return float(np.float32(value))


@given(block)
def test_q4_0_value_by_value(values: Floats) -> None:
    extreme = 0.0
    for value in values.tolist():
        extreme = value if abs(value) > abs(extreme) else extreme
    scale = _f32(extreme / -8)
    inverse = _f32(1 / scale) if abs(scale) >= 2**-126 else 0.0
    codes = [min(15, int(_f32(_f32(value * inverse) + 8.5))) for value in values.tolist()]
    assert references.q4_0(values).tolist() == [_f32(_half(scale) * (code - 8)) for code in codes]


@given(block)
def test_q8_0_value_by_value(values: Floats) -> None:
    scale = _f32(max(abs(value) for value in values.tolist()) / 127)
    inverse = _f32(1 / scale) if abs(scale) >= 2**-126 else 0.0
    scaled = [_f32(value * inverse) for value in values.tolist()]
    codes = [int(math.copysign(math.floor(abs(value) + 0.5), value)) for value in scaled]
    assert references.q8_0(values).tolist() == [_f32(_half(scale) * code) for code in codes]


@pytest.mark.slow
def test_iq4_nl_against_every_scale() -> None:
    """Values are levels times one FP16 scale, and the error is close to the least that any of 4000 scales allows."""
    blocks = np.random.default_rng(5).standard_normal((40, 32)).astype(np.float32)
    for values in blocks:
        restored = references.iq4_nl(values)
        spread = np.abs(values).max()
        scales = np.concatenate([np.linspace(-1.4, -0.6, 2000), np.linspace(0.6, 1.4, 2000)]) * spread / 113
        grid = scales[:, None] * references.IQ4_NL_LEVELS
        nearest = np.abs(values[None, :, None] - grid[:, None, :]).min(axis=2)
        least = float((nearest**2).sum(axis=1).min())
        error = float(((restored - values) ** 2).sum())
        assert error < 1.12 * least
        assert any(np.isin(restored, np.float32(one) * references.IQ4_NL_LEVELS).all() for one in _scales(restored))


def _scales(restored: Floats) -> list[float]:
    """Every FP16 scale that could have made the largest value of a block."""
    largest = float(restored[np.abs(restored).argmax()])
    return [float(np.float16(largest / level)) for level in references.IQ4_NL_LEVELS.tolist()]


def test_the_known_figures_on_gaussian_data() -> None:
    values = np.random.default_rng(11).standard_normal((2048, 128), dtype=np.float32)
    found = {
        codec.name: compare(values, codec.restore(values), np.random.default_rng(0)).snr_db
        for codec in references.REFERENCES
    }
    assert found["q4_0"] == pytest.approx(21.31, abs=0.06)
    assert found["q8_0"] == pytest.approx(45.43, abs=0.06)
    assert 22.57 < found["iq4_nl"] < 22.8  # a search on a coarse grid gives 22.57


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-20, 1e-7, 1e4])
@pytest.mark.parametrize("codec", references.REFERENCES, ids=lambda codec: codec.name)
def test_sizes_from_denormal_to_large_stay_finite(codec: Codec, size: float) -> None:
    values = np.random.default_rng(2).standard_normal((4, 64)).astype(np.float32) * np.float32(size)
    restored = codec.restore(values)
    assert np.isfinite(restored).all()
    assert np.abs(restored).max() <= 1.2 * np.abs(values).max() + 2**-20


@pytest.mark.parametrize("codec", references.REFERENCES, ids=lambda codec: codec.name)
def test_zeros_stay_zero(codec: Codec) -> None:
    assert not codec.restore(np.zeros((3, 64), dtype=np.float32)).any()


def test_rows_that_blocks_do_not_fill_are_refused() -> None:
    with pytest.raises(ConfigError, match="blocks of 32, which do not fill rows of 80"):
        references.REFERENCES[0].restore(np.zeros((2, 80), dtype=np.float32))
