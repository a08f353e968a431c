from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.quality.llama_server import predict
from toolchain.core.config import Config
from toolchain.core.errors import ServerFailed, TextTooShort, ToolchainError, VerificationFailed
from toolchain.models.compatibility import trial
from toolchain.models.compatibility.trial import Prediction, divergence, predictions

TEXT = "What the model reads. " * 40


def _predictions(server: Path, model: Path, config: Config, cache: str, text: str = TEXT) -> tuple[Prediction, ...]:
    return predictions(server, model, text, cache=cache, context=400, config=config, tokens=320)


def test_the_divergence_of_a_disturbed_server(
    server: Path, model: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_TEST_NOISE", "turbo4=0.5")
    exact, rough = (_predictions(server, model, config, cache) for cache in ("f16", "f16:turbo4"))
    assert len(exact) == trial.POSITIONS
    assert divergence(exact, exact).mean == pytest.approx(0, abs=1e-12)
    places = range(192, 321, 2)[1:]  # the second half of 320 tokens
    pairs = [(predict(n, ("f16", "f16")), predict(n, ("f16", "turbo4"))) for n in places]
    true = [float(np.sum(np.exp(a) * (a - b))) for a, b in pairs][-trial.POSITIONS :]
    found = divergence(exact, rough)
    assert found.mean == pytest.approx(np.mean(true), rel=0.15)
    assert found.error == pytest.approx(np.std(true) / 8, rel=0.5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0, 3))
def test_lists_that_differ_give_a_lower_bound(seed: int, listed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    logits = [rng.normal(0, 2, 40)]
    logits.append(logits[0] + noise * rng.normal(0, 1, 40))
    full = [a - math.log(np.sum(np.exp(a))) for a in logits]
    true = float(np.sum(np.exp(full[0]) * (full[0] - full[1])))
    cut = [Prediction(listed={int(i): float(a[i]) for i in np.argsort(-a)[:listed]}) for a in full]
    found = divergence(cut[:1] * 2, cut[1:] * 2).mean
    assert -1e-9 <= found <= true + 1e-9
    if listed == 40:
        assert found == pytest.approx(true, abs=1e-6)


def test_every_layer_must_have_its_type(
    server: Path, model: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "turbo4,layers=1:q8_0:turbo4"
    assert len(_predictions(server, model, config, asked)) == trial.POSITIONS
    monkeypatch.setenv("TQ_TEST_FAIL", "other-type")
    with pytest.raises(VerificationFailed, match="asked for K of attention layer 0 as turbo4, the log says f16"):
        _predictions(server, model, config, asked)


@pytest.mark.parametrize(
    ("fail", "error", "words"),
    [
        (
            "other-type",
            VerificationFailed,
            "q8_0:turbo4: asked for K q8_0 and V turbo4, the cache has K f16 and V turbo4",
        ),
        ("silent", ServerFailed, "contains no probabilities"),
    ],
)
def test_what_goes_wrong_is_told(
    server: Path,
    model: Path,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    fail: str,
    error: type[ToolchainError],
    words: str,
) -> None:
    monkeypatch.setenv("TQ_TEST_FAIL", fail)
    with pytest.raises(error, match=words):
        _predictions(server, model, config, "q8_0:turbo4")


def test_a_short_text(server: Path, model: Path, config: Config) -> None:
    with pytest.raises(TextTooShort, match="has 5 tokens, 256 are needed"):
        _predictions(server, model, config, "f16", "short")
