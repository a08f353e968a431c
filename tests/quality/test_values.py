"""What values would gain, on values with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from bench.values import Numbers, gains

SIZE = 8


def drawn(seed: int, scale: Numbers, constant: float = 0.0) -> Numbers:
    found: Numbers = np.random.default_rng(seed).standard_normal((20_000, SIZE)) * scale + constant
    return found


def test_a_constant_is_gained_as_its_share_of_the_energy() -> None:
    first, second = (drawn(seed, np.ones(SIZE), 3.0) for seed in (1, 2))
    constant, scaled, any_matrix = gains(first, second, np.eye(SIZE))
    assert constant == pytest.approx(10, abs=0.1)  # 1 + 9 to 1
    assert (scaled, any_matrix) == pytest.approx((0, 0), abs=0.01)


def test_loud_channels_that_count_little_are_scaled() -> None:
    """By Cauchy and Schwarz the error falls from sum(k) sum(q) to (sum sqrt(k q))^2."""
    loud = np.array([10.0, 1, 1, 1, 1, 1, 1, 1])
    k, q = loud**2, 1 / loud**2
    wanted = 10 * np.log10(k.sum() * q.sum() / np.sqrt(k * q).sum() ** 2)
    turn, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((SIZE, SIZE)))
    plain = gains(drawn(1, loud), drawn(2, loud), np.diag(q))
    assert plain[1:] == pytest.approx((wanted, wanted), abs=0.1)
    turned = gains(drawn(1, loud) @ turn.T, drawn(2, loud) @ turn.T, turn @ np.diag(q) @ turn.T)
    assert turned[2] == pytest.approx(wanted, abs=0.1)  # a matrix undoes what mixes the channels, scales do not
    assert turned[1] < wanted - 1
