from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.models.compatibility.channels import Layer
from toolchain.models.compatibility.keys import content, losses
from toolchain.models.quality.samples import Sample

TOKENS = 512


@given(
    st.floats(0, np.pi), st.floats(0, 2 * np.pi), st.sampled_from([0.0, 1.0, 10.0, 300.0]), st.integers(0, 2**32 - 1)
)
def test_a_turning_offset_is_no_content(step: float, phase: float, offset: float, seed: int) -> None:
    """RoPE turns a constant pair by `step` from token to token; what varies beside it has a mean square of 1."""
    noise = np.random.default_rng(seed).standard_normal((TOKENS, 2))
    angles = phase + step * np.arange(TOKENS)
    turned = offset * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = content((noise + turned).astype(np.float32))
    np.testing.assert_allclose(found, np.mean(noise**2, axis=0), rtol=0.5)


def test_channels_without_anything() -> None:
    assert content(np.zeros((TOKENS, 3), dtype=np.float32)).tolist() == [0, 0, 0]


def _layer(index: int, *, windowed: bool, queries: np.ndarray | None = None) -> Layer:
    return Layer(index=index, windowed=windowed, queries=queries, keys=None, content=None)


def _sample(seed: int, offset: float, *, keys: bool = True) -> Sample:
    values = np.random.default_rng(seed).standard_normal((TOKENS, 2, 64)).astype(np.float32)
    values[:, :, 0] += offset
    return Sample(name=f"dump.{seed}", values=values, rotation=64, keys=keys)


def test_layers_of_a_dump_in_the_models_order() -> None:
    """A dump has those with full attention first; an offset of 16 in one of 64 channels is five times the energy."""
    layers = [_layer(0, windowed=True), _layer(1, windowed=False), _layer(2, windowed=True), _layer(3, windowed=False)]
    offsets = [0.0, 16.0, 32.0, 0.0]  # of layers 1, 3, 0 and 2
    dumped = [one for seed, size in enumerate(offsets) for one in (_sample(seed, size), _sample(9, 99.0, keys=False))]
    found = losses(dumped, layers)
    assert found == pytest.approx([17, 1, 1, 5], rel=0.1)


def test_queries_weigh_the_channels() -> None:
    deaf = np.ones((2, 64))
    deaf[:, 1:] = 0  # the queries see nothing but channel 0
    (even,) = losses([_sample(1, 0)], [_layer(0, windowed=False)])
    (heard,) = losses([_sample(1, 0)], [_layer(0, windowed=False, queries=deaf)])
    assert (even, heard) == pytest.approx((1, 1), rel=0.15)
    assert losses([_sample(1, 16)], [_layer(0, windowed=False, queries=deaf)])[0] == pytest.approx(5, rel=0.15)


def test_a_dump_of_other_layers_says_nothing() -> None:
    assert losses([_sample(1, 0)], [_layer(0, windowed=False), _layer(1, windowed=False)]) == (None, None)
