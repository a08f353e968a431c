from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.processes import ended
from toolchain.core.config import Config
from toolchain.core.console import Console
from toolchain.core.errors import (
    ConfigError,
    ModelLoadFailed,
    ReleaseInvalid,
    ServerFailed,
    StateInvalid,
    TextTooShort,
    ToolchainError,
)
from toolchain.models.quality.dump import dump, read_heads
from toolchain.models.quality.samples import Sample
from toolchain.serving.probe_model import write_probe

from . import slots
from .llama_server import SEED

TEXT = "What the model reads. " * 40


def _dump(server: Path, model: Path, config: Config, text: str = TEXT, tokens: int = 200) -> tuple[Sample, ...]:
    return dump(server, model, text, tokens, config, Console())


def test_keys_and_values_by_layer_and_head(server: Path, model: Path, config: Config) -> None:
    before = set(
        psutil.Process().children(recursive=True)
    )  # other tests of this process may have left services running
    found = _dump(server, model, config)
    assert [sample.name for sample in found] == ["dump.k.0", "dump.v.0", "dump.k.1", "dump.v.1"]
    assert [sample.rotation for sample in found] == [128, 64, 128, 64]
    assert [sample.keys for sample in found] == [True, False, True, False]
    rng = np.random.default_rng(SEED)
    written = [numbers for _ in range(2) for numbers in slots.numbers(rng, 2, 200, 256)]
    for sample, numbers in zip(found, written, strict=True):
        np.testing.assert_array_equal(sample.values, numbers.astype(np.float32).reshape(200, 2, 128))
    left = set(psutil.Process().children(recursive=True)) - before
    assert all(ended(one.pid) for one in left)


def test_the_text_is_cut_to_the_models_context(server: Path, model: Path, config: Config) -> None:
    assert _dump(server, model, config, tokens=10**6)[0].values.shape == (400 - 16, 2, 128)


@pytest.mark.parametrize(
    ("fail", "error", "words"),
    [
        ("load", ModelLoadFailed, r"ended with 1(.|\n)*unknown architecture of the scripted model"),
        ("die", ServerFailed, r"completion: no answer(.|\n)*the scripted end"),
        ("truncate", StateInvalid, "truncated"),
        ("short", StateInvalid, "does not have the announced"),
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
        _dump(server, model, config)


def test_a_short_text(server: Path, model: Path, config: Config) -> None:
    with pytest.raises(TextTooShort, match="has 5 tokens, 128 are needed"):
        _dump(server, model, config, text="short")


def test_what_is_no_model(server: Path, tmp_path: Path, config: Config) -> None:
    path = tmp_path / "model.gguf"
    for content in (b"", b"GGUF", b"GGUF\3\0\0\0" + bytes(100), b"no model at all"):
        path.write_bytes(content)
        with pytest.raises(ModelLoadFailed, match=r"model\.gguf: not a GGUF model"):
            _dump(server, path, config)


def test_heads_that_are_not_rotated(server: Path, tmp_path: Path, config: Config) -> None:
    path = tmp_path / "odd.gguf"
    write_probe(path, head_size=80, heads=2, kv_heads=2, layers=1, context=400, seed=1)
    assert read_heads(path).key_size == 80
    with pytest.raises(ConfigError, match="heads of 80 are not rotated"):
        _dump(server, path, config)


def test_no_server(tmp_path: Path, model: Path, config: Config) -> None:
    with pytest.raises(ReleaseInvalid, match="no such program"):
        _dump(tmp_path / "llama-server", model, config)
