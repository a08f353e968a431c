from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.core.errors import ConfigError
from toolchain.models.quality import samples
from toolchain.models.quality.measure import Figures, attention, compare, mean

RNG = np.random.default_rng


@settings(max_examples=20)
@given(
    snr=st.floats(5, 50), shrink=st.floats(0.5, 1.2), scale=st.sampled_from([1e-3, 1.0, 1e3]), seed=st.integers(0, 99)
)
def test_figures_of_known_errors(snr: float, shrink: float, scale: float, seed: int) -> None:
    """Independent noise of a known size shows as SNR and variance; a known shrinking shows as bias."""
    x = RNG(seed).standard_normal((800, 128), dtype=np.float32) * np.float32(scale)
    noise = RNG(seed + 1000).standard_normal(x.shape) * scale * 10 ** (-snr / 20)
    noisy = compare(x, (x + noise).astype(np.float32), RNG(1))
    assert noisy.snr_db == pytest.approx(snr, abs=0.15)
    assert noisy.cosine == pytest.approx(1 / math.sqrt(1 + 10 ** (-snr / 10)), abs=5e-3)
    assert abs(noisy.ip_bias) < 0.02 * 10 ** (-snr / 20) + 1e-6
    assert noisy.ip_variance == pytest.approx(10 ** (-snr / 10), rel=0.05)
    shrunk = compare(x, (x * shrink).astype(np.float32), RNG(1))
    assert shrunk.ip_bias == pytest.approx(shrink - 1, abs=1e-5)
    assert shrunk.cosine == pytest.approx(1, abs=1e-6)


def test_nothing_lost_and_nothing_there() -> None:
    x = RNG(0).standard_normal((100, 64), dtype=np.float32)
    same = compare(x, x.copy(), RNG(1))
    assert (same.snr_db, same.ip_bias, same.ip_variance) == (math.inf, 0, 0)
    assert same.cosine == pytest.approx(1)
    zero = compare(x * 0, x * 0, RNG(1))
    assert (zero.snr_db, zero.cosine, zero.ip_bias, zero.ip_variance) == (math.inf, 1, 0, 0)


def test_a_mean_is_over_errors() -> None:
    parts = [
        Figures(snr_db=10, cosine=0.9, ip_bias=-0.1, ip_variance=0.1),
        Figures(snr_db=20, cosine=1, ip_bias=0, ip_variance=0),
    ]
    assert mean(parts).snr_db == pytest.approx(-10 * math.log10((0.1 + 0.01) / 2))
    assert mean(parts).cosine == pytest.approx(0.95)


def test_attention_over_growing_contexts() -> None:
    keys = RNG(0).standard_normal((2000, 2, 64), dtype=np.float32)
    noise = RNG(1).standard_normal(keys.shape).astype(np.float32)
    exact = attention(keys, keys.copy(), RNG(2))
    assert [row.context for row in exact] == [256, 1024, 2000]
    assert all(row.scores == pytest.approx(1) and row.weights == pytest.approx(1) for row in exact)
    small, large = (attention(keys, keys + np.float32(size) * noise, RNG(2)) for size in (0.1, 0.5))
    for a, b in zip(small, large, strict=True):
        assert a.scores == pytest.approx(1 / math.sqrt(1.01), abs=1e-3)
        # scores that err by s (nats), independently, turn the weights by exp(-s^2 / 2)
        assert a.weights == pytest.approx(math.exp(-0.01 / 2), abs=2e-3)
        assert b.weights < a.weights < 1
    assert len(attention(keys[:100], keys[:100], RNG(2))) == 1


@pytest.mark.parametrize("size", [1, 2, 64, 128, 512])
def test_the_transform_is_orthogonal_and_its_own_inverse(size: int) -> None:
    matrix = samples.hadamard(size)
    np.testing.assert_allclose(matrix @ matrix, np.eye(size), atol=1e-5)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert len(np.unique(np.abs(matrix))) == 1
    values = RNG(size).standard_normal((3, 2, size), dtype=np.float32)
    np.testing.assert_allclose(samples.rotate(samples.rotate(values, size), size), values, atol=1e-5)


def test_a_head_is_transformed_in_runs() -> None:
    values = RNG(0).standard_normal((3, 2, 128), dtype=np.float32)
    by_halves = np.concatenate([samples.rotate(values[..., :64], 64), samples.rotate(values[..., 64:], 64)], axis=-1)
    np.testing.assert_allclose(samples.rotate(values, 64), by_halves, atol=1e-6)


@pytest.mark.parametrize(("head", "size"), [(64, 64), (128, 128), (192, 64), (256, 256), (512, 512), (576, 64)])
def test_rotation_sizes(head: int, size: int) -> None:
    assert samples.rotation_size(head) == size


@pytest.mark.parametrize("head", [-64, 0, 32, 80, 96])
def test_heads_that_are_not_rotated(head: int) -> None:
    with pytest.raises(ConfigError, match="not rotated"):
        samples.rotation_size(head)


def test_distributions_are_what_they_say() -> None:
    def drawn(name: str, seed: int = 3) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        return samples.draw(name, tokens=20000, head_size=64, seed=seed).values[:, 0].astype(np.float64)

    assert drawn("gaussian").std() == pytest.approx(1, abs=0.01)
    assert drawn("student5").var() == pytest.approx(5 / 3, rel=0.05)
    assert np.median(np.abs(drawn("student3"))) == pytest.approx(0.7649, abs=0.01)
    channels = drawn("outlier").std(axis=0)
    assert sorted(channels.round())[-5:] == [1, 10, 10, 10, 10]
    offsets = drawn("offset").mean(axis=0)
    assert 1.5 < offsets.std() < 2.5
    assert (drawn("offset") - offsets).std() == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(drawn("offset"), drawn("offset"))
    assert not np.array_equal(drawn("gaussian"), drawn("gaussian", seed=4))
