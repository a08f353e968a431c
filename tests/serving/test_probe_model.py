from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.core.errors import ToolchainError
from toolchain.serving.probe_model import EMBEDDING, write_probe


def _field(reader: gguf.GGUFReader, key: str) -> object:
    return reader.fields[key].contents()


@settings(max_examples=15, deadline=None)
@given(
    head_size=st.sampled_from([2, 64, 128]),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    layers=st.integers(1, 3),
    context=st.integers(1, 4096),
    seed=st.integers(0, 2**32),
)
def test_reader_finds_the_geometry(
    tmp_path_factory: pytest.TempPathFactory,
    head_size: int,
    kv_heads: int,
    group: int,
    layers: int,
    context: int,
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("model") / "probe.gguf"
    heads = kv_heads * group
    made = write_probe(
        path, head_size=head_size, heads=heads, kv_heads=kv_heads, layers=layers, context=context, seed=seed
    )
    reader = gguf.GGUFReader(path)
    assert _field(reader, "general.architecture") == "llama"
    assert _field(reader, "llama.context_length") == made.context == context
    assert _field(reader, "llama.embedding_length") == EMBEDDING
    assert _field(reader, "llama.attention.head_count") == heads
    assert _field(reader, "llama.attention.head_count_kv") == kv_heads
    assert _field(reader, "llama.attention.key_length") == _field(reader, "llama.attention.value_length") == head_size
    assert _field(reader, "llama.block_count") == layers

    tensors = {tensor.name: tensor for tensor in reader.tensors}
    vocabulary = len(_field(reader, "tokenizer.ggml.tokens"))  # type: ignore[arg-type]
    assert len(tensors) == 3 + 9 * layers
    for layer in range(layers):
        for name, width in (("k", made.kv_width), ("v", made.kv_width), ("q", heads * head_size)):
            weights = tensors[f"blk.{layer}.attn_{name}.weight"]
            assert tuple(weights.data.shape) == (width, EMBEDDING)
            assert weights.tensor_type == gguf.GGMLQuantizationType.F16
            assert np.isfinite(weights.data).all()
            assert len(np.unique(weights.data)) > 1
    assert tensors["output_norm.weight"].tensor_type == gguf.GGMLQuantizationType.F32
    assert tuple(tensors["token_embd.weight"].data.shape) == (vocabulary, EMBEDDING)


def test_only_letters_can_win(tmp_path: Path) -> None:
    """End, control and byte tokens and the blank have zero rows in the output matrix; every letter has its own."""
    write_probe(tmp_path / "m.gguf", head_size=64, heads=2, kv_heads=1, layers=1, context=256, seed=3)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    kinds = _field(reader, "tokenizer.ggml.token_type")
    tokens = _field(reader, "tokenizer.ggml.tokens")
    (output,) = (tensor.data for tensor in reader.tensors if tensor.name == "output.weight")
    assert isinstance(kinds, list)
    assert isinstance(tokens, list)
    for kind, token, row in zip(kinds, tokens, output, strict=True):
        assert (kind == gguf.TokenType.NORMAL and token != "\u2581") == bool(np.any(row)), token
    assert tokens[_field(reader, "tokenizer.ggml.eos_token_id")] == "</s>"  # type: ignore[call-overload]
    assert len(set(tokens)) == len(tokens)


def test_the_seed_decides_the_bytes(tmp_path: Path) -> None:
    def written(name: str, seed: int) -> bytes:
        write_probe(tmp_path / name, head_size=64, heads=4, kv_heads=2, layers=2, context=512, seed=seed)
        return (tmp_path / name).read_bytes()

    first = written("a", 7)
    assert written("b", 7) == first
    other = written("c", 8)
    assert len(other) == len(first)
    assert other != first


@pytest.mark.parametrize(
    "wrong", [{"heads": 3}, {"head_size": 63}, {"layers": 0}, {"kv_heads": 0}, {"context": -1}, {"heads": 0}]
)
def test_impossible_geometry(tmp_path: Path, wrong: dict[str, int]) -> None:
    geometry = {"head_size": 64, "heads": 4, "kv_heads": 2, "layers": 1, "context": 256} | wrong
    with pytest.raises(ToolchainError, match=str(next(iter(wrong.values())))):
        write_probe(tmp_path / "m.gguf", **geometry, seed=1)
    assert list(tmp_path.iterdir()) == []
