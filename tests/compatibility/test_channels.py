from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import extreme
from tests.memory import models
from toolchain.core.errors import ModelInvalid
from toolchain.models.compatibility import channels

HEAD, HEADS, KV_HEADS, WIDTH = 64, 4, 2, 256
Kind = gguf.GGMLQuantizationType


def _decibels(path: Path) -> list[float]:
    losses = [layer.loss() for layer in channels.read(path)]
    return [float(10 * np.log10(one)) for one in losses if one is not None]


def _write(
    path: Path, tensors: dict[str, npt.NDArray[Any]], *, kind: Kind = Kind.F32, arch: str = "llama", split: int = 0
) -> Path:
    """A model of one layer: `tensors` are its own, by the name behind blk.0; `split` of them to a file."""
    writer = gguf.GGUFWriter(path, arch, split_max_tensors=split)
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_feed_forward_length(WIDTH)
    writer.add_vocab_size(16)
    writer.add_tokenizer_model("none")
    for name, data in tensors.items():
        full = f"blk.0.{name}"
        if data.ndim == 2:
            stored = gguf.quants.quantize(data.astype(np.float32), kind)
            writer.add_tensor(full, stored, raw_dtype=kind)
        else:
            writer.add_tensor(full, data.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _weights(scale: float = 1.0) -> dict[str, npt.NDArray[Any]]:
    """Random ones; channel 5 of every key is `scale` times as large, and meets queries as much smaller."""
    rng = np.random.default_rng(1)
    queries, keys = rng.standard_normal((HEADS, HEAD, WIDTH)), rng.standard_normal((KV_HEADS, HEAD, WIDTH))
    queries[:, 5] /= scale
    keys[:, 5] *= scale
    return {
        "attn_q.weight": queries.reshape(-1, WIDTH),
        "attn_k.weight": keys.reshape(-1, WIDTH),
        "attn_norm.weight": rng.uniform(0.5, 2, WIDTH),
    }


def _expected(keys: npt.NDArray[Any], bias: npt.NDArray[Any]) -> float:
    """For rows of even energy: noise follows the mean of k^2 + b^2, the signal of even queries the mean of k^2."""
    return float(10 * np.log10((keys + bias**2).mean() / keys.mean()))


def test_an_ordinary_model_loses_nothing(model: Path) -> None:
    assert _decibels(model) == pytest.approx([0.0, 0.0], abs=0.2)


@pytest.mark.parametrize("scale", [4.0, 32.0, 128.0])
def test_a_scaling_that_attention_undoes(model: Path, tmp_path: Path, scale: float) -> None:
    """One of 64 pairs s times as large, its queries as much smaller: the noise grows by (63 + s^2) / 64, no signal."""
    path = tmp_path / "extreme.gguf"
    extreme.write(model, path, scale=scale, pairs=[60], layers=[1])
    small = (63 + scale**-2) / 64  # the queries' own energy
    expected = 10 * np.log10((63 + scale**2) / 64 * small)
    assert _decibels(path) == pytest.approx([0.0, expected], abs=0.4)


@pytest.mark.parametrize("offset", [1.0, 20.0])
def test_a_constant_offset(model: Path, tmp_path: Path, offset: float) -> None:
    path = tmp_path / "extreme.gguf"
    extreme.write(model, path, offset=offset, pairs=[63], layers=[0])
    content = np.concatenate(
        [layer.content.reshape(-1) for layer in channels.read(model)[:1] if layer.content is not None]
    )
    bias = np.zeros_like(content).reshape(2, 128)
    bias[:, 126:] = offset
    assert _decibels(path)[0] == pytest.approx(_expected(content, bias.reshape(-1)), abs=0.3)
    assert _decibels(path)[1] == _decibels(model)[1]


@pytest.mark.parametrize("kind", [Kind.F16, Kind.Q8_0, Kind.Q4_0, Kind.BF16])
def test_quantized_weights(tmp_path: Path, kind: Kind) -> None:
    weights = _weights(30)
    exact, rough = (_decibels(_write(tmp_path / f"{one.name}.gguf", weights, kind=one))[0] for one in (Kind.F32, kind))
    assert exact > 5
    assert rough == pytest.approx(exact, abs=0.2)


def test_a_model_of_several_files(tmp_path: Path) -> None:
    whole = _decibels(_write(tmp_path / "whole.gguf", _weights(30)))
    _write(tmp_path / "split.gguf", _weights(30), split=1)
    assert len(list(tmp_path.glob("split-*-of-00003.gguf"))) == 3
    assert _decibels(tmp_path / "split-00001-of-00003.gguf") == whole


def test_long_rows_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = _weights(40)
    exact = _decibels(_write(tmp_path / "a.gguf", weights, kind=Kind.Q8_0))[0]
    monkeypatch.setattr(channels, "COLUMNS", WIDTH // 2)
    assert _decibels(tmp_path / "a.gguf")[0] == pytest.approx(exact, abs=0.5)
    assert _decibels(tmp_path / "a.gguf")[0] != exact


def test_one_tensor_for_q_k_and_v(tmp_path: Path) -> None:
    weights = _weights(25)
    apart = _write(tmp_path / "apart.gguf", weights | {"attn_k.bias": np.full(KV_HEADS * HEAD, 3.0)})
    bias = np.concatenate([np.zeros(HEADS * HEAD), np.full(KV_HEADS * HEAD, 3.0), np.zeros(KV_HEADS * HEAD)])
    values = np.ones((KV_HEADS * HEAD, WIDTH))
    fused = np.concatenate([weights.pop("attn_q.weight"), weights.pop("attn_k.weight"), values])
    together = _write(tmp_path / "fused.gguf", weights | {"attn_qkv.weight": fused, "attn_qkv.bias": bias})
    assert _decibels(together) == pytest.approx(_decibels(apart), abs=1e-6)


def test_norms_of_the_heads_set_the_scale(tmp_path: Path) -> None:
    """As in Qwen3: the weights of the projections matter only in proportion, the norm's own do."""
    scale = np.ones(HEAD)
    scale[7] = 40.0
    path = _write(tmp_path / "a.gguf", _weights() | {"attn_k_norm.weight": scale, "attn_q_norm.weight": 1 / scale})
    (layer,) = channels.read(path)
    assert layer.keys is not None
    assert layer.keys[:, 7] / layer.keys.mean(axis=1) == pytest.approx([1600 / (63 + 1600) * 64] * 2, rel=0.3)
    assert _decibels(path)[0] == pytest.approx(10 * np.log10((63 + 1600) / 64), abs=0.5)


def test_gated_queries(tmp_path: Path) -> None:
    weights = _weights()
    plain = _decibels(_write(tmp_path / "plain.gguf", weights))
    rows = weights["attn_q.weight"].reshape(HEADS, 1, HEAD, WIDTH)
    gate = np.full_like(rows, 100.0)
    weights["attn_q.weight"] = np.concatenate([rows, gate], axis=1).reshape(-1, WIDTH)
    assert _decibels(_write(tmp_path / "gated.gguf", weights)) == pytest.approx(plain)


def test_a_layout_that_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    weights = _weights()
    weights["attn_k.weight"] = weights["attn_k.weight"][:-HEAD]
    (layer,) = channels.read(_write(tmp_path / "a.gguf", weights))
    assert layer.loss() is None


@given(st.integers(0, 2**32 - 1), st.sampled_from([64, 128, 192]), st.floats(0.1, 30))
def test_loss_is_blind_to_what_attention_undoes(seed: int, size: int, factor: float) -> None:
    """Even channels, any scale of all keys or all queries: nothing is lost."""
    rng = np.random.default_rng(seed)
    even = np.full((2, size), rng.uniform(0.1, 10))
    assert channels.loss(even * factor, even, even) == pytest.approx(1)
    queries, keys = rng.uniform(0.1, 2, (2, size)), rng.uniform(0.1, 2, (2, size))
    assert channels.loss(queries * factor, keys, keys) == pytest.approx(channels.loss(queries, keys, keys))
    assert channels.loss(queries, keys + factor, keys) > channels.loss(queries, keys, keys)


def test_no_content_and_no_energy() -> None:
    some, none = np.ones((1, 64)), np.zeros((1, 64))
    assert channels.loss(some, some, none) == np.inf
    assert channels.loss(some, none, none) == 1


def test_errors_do_not_cross_runs() -> None:
    """Heads of 192 are rotated by 64: a loud third does not harm the others."""
    keys = np.ones((1, 192))
    keys[:, :64] = 1000
    assert channels.loss(np.ones((1, 192)), keys, np.ones((1, 192))) == pytest.approx((1000 + 1 + 1) / 3)
    quiet = np.repeat([[0.0, 1.0, 1.0]], 64, axis=1)
    assert channels.loss(quiet, keys, np.ones((1, 192))) == pytest.approx(1)


@pytest.mark.parametrize("changes", [{"attention.head_count": True}, {"attention.key_length": 0}])
def test_numbers_of_heads_that_are_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    """`true` counts as one head; heads without values have no loss."""
    spec = models.dense(layers=1, heads=2, kv_heads=1, further=changes)
    (layer,) = channels.read(models.write(tmp_path / "m.gguf", spec))
    assert layer.loss() in (None, 1.0)


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    weights = _weights() | {"attn_norm.weight": np.full(WIDTH, 1e30)}
    weights["attn_q.weight"][0, 0] = np.nan
    (layer,) = channels.read(_write(tmp_path / "a.gguf", weights))
    assert layer.loss() is not None


def test_what_is_no_model(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"no model at all")
    with pytest.raises(ModelInvalid, match="not a GGUF"):
        channels.read(path)
    shutil.copy(model, path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(ModelInvalid, match="truncated"):
        channels.read(path)
