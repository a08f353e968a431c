from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import extreme
from tests.memory import models
from tests.tasks.test_command import inv
from toolchain.core import config as configuration
from toolchain.core.cachetypes.grammar import parse
from toolchain.core.cachetypes.table import nominal, own, type_table
from toolchain.core.config import Config
from toolchain.core.console import Console
from toolchain.core.errors import ConfigError, ModelInvalid
from toolchain.core.records import sha256_bytes
from toolchain.models.compatibility import verdict
from toolchain.models.named import find_model
from toolchain.models.quality import kernels, references
from toolchain.models.quality.measure import compare
from toolchain.models.quality.samples import draw
from toolchain.proofs import Compatibility, LayerLoss
from toolchain.series import manifest
from toolchain.stages import CacheType
from toolchain.text import as_text

ADDED = tuple(CacheType(name=f"turbo{bits}", block=64, bytes=8 * bits + 2) for bits in (4, 3, 2))
TEXT = "What the model reads. " * 40
TABLE = type_table(own())
TURBO4_DB = nominal(own())["turbo4"]


def _examine(model: Path, asked: str, config: Config, server: Path | None = None) -> Compatibility:
    return verdict.examine(
        model, asked, added=ADDED, server=server, text=TEXT, config=config, console=Console(), tokens=300
    )


@pytest.fixture
def scaled(model: Path, tmp_path: Path) -> Path:
    """The scores of its layer 1 fall 24 dB short."""
    path = tmp_path / "scaled.gguf"
    extreme.write(model, path, scale=128, pairs=[60], layers=[1])
    return path


def test_the_nominal_figures_are_those_of_the_kernels(config: Config, workspace: Path) -> None:
    sample = draw("gaussian", tokens=2000, head_size=128, seed=3)
    codecs = (*kernels.load(manifest.load(manifest.OWN_SERIES), config, workspace), *references.REFERENCES)
    assert {codec.name for codec in codecs} == {"turbo5", "turbo4", "turbo3", "turbo2", "q4_0", "iq4_nl", "q8_0"}

    for codec in codecs:
        found = compare(sample.rotated(), codec.restore(sample.rotated()), np.random.default_rng(0))
        slack = 0.7 if codec.name == "iq4_nl" else 0.15  # ours searches the scale, llama.cpp's does not
        assert found.snr_db == pytest.approx(TABLE[codec.name].db, abs=slack), codec.name


def test_from_the_weights_alone(model: Path, scaled: Path, config: Config) -> None:
    assert _examine(model, "turbo2", config).answer == "fine"
    found = _examine(scaled, "turbo4", config)
    assert (found.answer, found.measured, found.proposal) == ("collapses", False, "turbo4,layers=1:q8_0:turbo4")
    assert found.text_sha256 == ""  # nothing was read
    assert [one.weights_db for one in found.layers] == pytest.approx([0, 24], abs=0.5)
    assert found.trials[0].predicted_db == pytest.approx(TURBO4_DB - 24 + 3, abs=0.6)
    assert _examine(scaled, "turbo4,layers=1:q8_0:turbo4", config).answer == "fine"
    assert _examine(scaled, "f16:turbo2", config).answer == "fine"


def test_what_is_known_of_its_kind_is_said_beside_the_answer(tmp_path: Path, config: Config) -> None:
    spec = models.dense("gptoss", layers=2, further={"attention.sliding_window": 128})
    path = models.write(tmp_path / "m.gguf", spec)
    found = _examine(path, "turbo4", config)
    assert found.risk.startswith("its attention has sinks")
    assert found.risk.endswith("better: q8_0")
    assert found.risk in as_text(found)
    assert _examine(path, "q8_0", config).risk == ""


def test_weights_of_a_type_that_is_not_decoded_predict_nothing(tmp_path: Path, config: Config) -> None:
    spec = models.dense(layers=1)
    name = "blk.0.attn_q.weight"
    tensors = [(key, shape, models.Kind.F32 if key == name else kind) for key, shape, kind in spec.tensors]
    path = models.write(tmp_path / "m.gguf", models.Spec("llama", spec.metadata, tensors))
    data = bytearray(path.read_bytes())
    at = data.index(name.encode()) + len(name) + 4 + 2 * 8
    data[at] = models.Kind.I32  # as large as F32
    path.write_bytes(data)
    assert _examine(path, "turbo4", config).answer == "unknown"


def test_a_file_without_its_weights(tmp_path: Path, config: Config) -> None:
    path = models.write(tmp_path / "m.gguf", models.dense(layers=1), data=False)
    with pytest.raises(ModelInvalid, match="it has only a header"):
        _examine(path, "turbo4", config)


def test_what_cannot_be_asked(model: Path, config: Config) -> None:
    with pytest.raises(ConfigError, match="unknown cache type 'turbo9'"):
        _examine(model, "q8_0:turbo9", config)
    with pytest.raises(ConfigError, match="2 attention layers"):
        _examine(model, "turbo4,layers=2:q8_0", config)


@pytest.mark.slow
def test_the_measured_answer_decides(
    model: Path, scaled: Path, server: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of one say collapse, of the other fine; what the server predicts says the opposite."""
    found = _examine(scaled, "turbo4", config, server)
    assert (found.answer, found.measured, found.proposal, len(found.trials)) == ("fine", True, "", 1)
    assert found.trials[0].kl == pytest.approx(0, abs=1e-9)
    assert found.text_sha256 == sha256_bytes(TEXT.encode())
    assert all(one.keys_db is not None for one in found.layers)
    monkeypatch.setenv("TQ_TEST_NOISE", "turbo4=1 turbo3=1")
    found = _examine(model, "turbo4", config, server)
    assert (found.answer, found.proposal) == ("collapses", "q8_0")
    assert [(one.cache, one.answer) for one in found.trials] == [
        ("turbo4", "collapses"),
        ("q8_0:turbo4", "collapses"),
        ("q8_0", "fine"),
    ]


@pytest.mark.slow
def test_worst_layers_are_kept_first(
    scaled: Path, server: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not know rules for layers fails that trial alone."""
    monkeypatch.setenv("TQ_TEST_NOISE", "turbo4=1.2")
    found = _examine(scaled, "turbo4:q8_0", config, server)
    assert (found.answer, found.proposal) == ("collapses", "turbo4,layers=1:q8_0:q8_0")
    monkeypatch.setenv("TQ_TEST_FAIL", "layers")
    found = _examine(scaled, "turbo4:q8_0", config, server)
    refused = next(one for one in found.trials if "layers" in one.cache)
    assert (refused.answer, refused.kl) == ("unknown", None)
    assert "ended with 1" in refused.reason
    assert found.proposal == "q8_0"
    assert "not run" in as_text(found)


def _layers(*losses: float) -> list[LayerLoss]:
    return [LayerLoss(layer=number, weights_db=value) for number, value in enumerate(losses)]


def test_prediction_is_the_mean_noise_and_the_worst_layer() -> None:
    assert verdict.predict(parse("turbo4").k, _layers(0, 0), TABLE) == pytest.approx(TURBO4_DB)
    assert verdict.predict(parse("turbo4").k, _layers(10, -30), TABLE) == pytest.approx(TURBO4_DB - 10 + 3, abs=0.01)
    assert verdict.predict(parse("turbo4").k, _layers(10, *[0] * 19), TABLE) == pytest.approx(TURBO4_DB - 10 + 5)
    assert verdict.predict(parse("turbo4,layers=0:f16").k, _layers(30, 0), TABLE) == pytest.approx(
        TURBO4_DB + 3, abs=0.05
    )
    assert verdict.predict(parse("turbo4").k, [LayerLoss(layer=0, weights_db=None)], TABLE) is None
    assert LayerLoss(layer=0, weights_db=None, keys_db=3).worst_db == 3
    assert LayerLoss(layer=0, weights_db=5, keys_db=3).worst_db == 5


def _settings(**flags: Any) -> Config:
    return configuration.load(environ={}, flags=flags)


@pytest.mark.parametrize(("answer", "raises"), [("fine", False), ("costly", False), ("collapses", True)])
def test_what_a_pipeline_gets(answer: Any, raises: bool, capsys: pytest.CaptureFixture[str]) -> None:
    found = Compatibility(
        model="m", asked="turbo4", answer=answer, measured=True, proposal="q8_0:turbo4", layers=(), trials=()
    )
    refusal = verdict.refusal(found, _settings())
    assert (refusal is not None) == raises
    if refusal:
        assert "m: turbo4 makes its answers collapse" in refusal.message
        assert "--kv-cache-type q8_0:turbo4" in refusal.hint
    assert verdict.refusal(found, _settings(**{"verify.collapse": "accept"})) is None
    verdict.warn(found, Console())
    assert ("q8_0:turbo4 does better" in capsys.readouterr().err) == (answer != "fine")


@pytest.mark.slow
def test_the_command_line(scaled: Path, server: Path, tmp_path: Path) -> None:
    given = ["quality.guard", "--workspace", str(tmp_path / "ws"), "--model", str(scaled), "--json"]
    done = inv(*given, "--weights-only", "--kv-cache-type", "turbo4", cwd=tmp_path)
    assert done.returncode == 62, done.stderr
    found = json.loads(done.stdout)
    assert (found["answer"], found["proposal"]) == ("collapses", "turbo4,layers=1:q8_0:turbo4")
    assert "--kv-cache-type turbo4,layers=1:q8_0:turbo4" in done.stderr
    assert json.loads((tmp_path / "ws" / "quality" / "guard.json").read_text()) == found
    text = tmp_path / "text"
    text.write_text(TEXT)
    done = inv(*given, "--server", str(server), "--text", str(text), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["measured"]
    done = inv(*given, "--weights-only", "--set", "verify.collapse=accept", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning: scaled.gguf: turbo4 makes its answers collapse" in done.stderr


def test_a_model_by_its_name_in_ollamas_store(model: Path, tmp_path: Path) -> None:
    digest = "ab" * 32
    manifest_file = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "qwen" / "7b"
    manifest_file.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest_file.write_text(json.dumps({"layers": [layer]}))
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / f"sha256-{digest}").write_bytes(model.read_bytes())
    config = _settings(**{"deploy.models": str(tmp_path)})
    assert (
        verdict.examine(
            find_model("qwen:7b", config),
            "turbo4",
            added=ADDED,
            server=None,
            text="",
            config=config,
            console=Console(),
        ).answer
        == "fine"
    )
    for name in ("qwen:8b", "", "../model", "/nowhere.gguf"):
        with pytest.raises(ConfigError, match="no such model"):
            find_model(name, config)
