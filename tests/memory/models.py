"""Models of many geometries as GGUF files whose weights are all zero.

llama.cpp loads and runs them; since zeros need no room on most file systems, they may be as large as real ones.
"""

from __future__ import annotations

import dataclasses
import string
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import gguf

Kind = gguf.GGMLQuantizationType
Tensor: TypeAlias = tuple[str, tuple[int, ...], Kind]
_BYTES = 256
_LETTERS = "\u2581" + string.ascii_letters + string.digits
VOCABULARY = 3 + _BYTES + len(_LETTERS)


@dataclasses.dataclass(frozen=True)
class Spec:
    """An architecture, its metadata (keys below its name), and its tensors: name, shape (outputs first) and type."""

    architecture: str
    metadata: dict[str, Any]
    tensors: list[Tensor]
    vocabulary: int = VOCABULARY


def write(
    path: Path, spec: Spec, *, data: bool = True, tokens: bool = False, extra: dict[str, Any] | None = None
) -> Path:
    """Write the model; without `data` the file ends with its header. `extra` are full keys with whole numbers.

    A vocabulary beyond the usual one is only counted, unless `tokens` are to be written.
    """
    writer = gguf.GGUFWriter(path, spec.architecture)
    for key, value in spec.metadata.items():
        _add(writer, f"{spec.architecture}.{key}", value)
    for key, value in (extra or {}).items():
        _add(writer, key, value)
    if spec.vocabulary == VOCABULARY or tokens:
        _add_tokenizer(writer, spec.vocabulary)
    else:
        writer.add_tokenizer_model("none")
        writer.add_vocab_size(spec.vocabulary)
    end, factors = 0, None
    for name, shape, kind in spec.tensors:
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        values = 1
        for length in shape:
            values *= length
        size = values // block * block_bytes
        stored = (*shape[:-1], shape[-1] // block * block_bytes)
        writer.add_tensor_info(name, stored if block > 1 else shape, gguf_dtype(kind), size, raw_dtype=kind)
        factors = (end, size // 4) if name == "rope_freqs.weight" else factors
        end += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    if data:
        begin = -(-path.stat().st_size // 32) * 32
        with path.open("r+b") as file:
            file.truncate(begin + end)
            if factors:  # positions are divided by them
                file.seek(begin + factors[0])
                file.write(struct.pack("<f", 1.0) * factors[1])
    return path


def gguf_dtype(kind: Kind) -> Any:
    """What GGUFWriter wants to know about the data of a type."""
    import numpy as np

    return np.dtype({Kind.F32: np.float32, Kind.F16: np.float16}.get(kind, np.uint8))


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    kinds = gguf.TokenType
    tokens = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    tokens += [(f"<0x{value:02X}>", kinds.BYTE) for value in range(_BYTES)]
    tokens += [(letter, kinds.NORMAL) for letter in _LETTERS]
    tokens += [(f"<unused{number}>", kinds.NORMAL) for number in range(len(tokens), vocabulary)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([int(kind) for _, kind in tokens])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


# -- attention in every layer ----------------------------------------------------------------------


def dense(
    architecture: str = "llama",
    *,
    layers: int = 4,
    embedding: int = 128,
    feed_forward: int = 128,
    heads: int = 4,
    kv_heads: int = 2,
    head_size: int = 64,
    context: int = 131072,
    vocabulary: int = VOCABULARY,
    quantized: bool = False,
    tied: bool = False,
    further: dict[str, Any] | None = None,
) -> Spec:
    """Grouped-query attention; gemma3 and qwen3 with their further norms. `quantized` mixes as Q4_K_M does."""
    metadata = {
        "context_length": context,
        "embedding_length": embedding,
        "block_count": layers,
        "feed_forward_length": feed_forward,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head_size,
        "attention.value_length": head_size,
        "rope.dimension_count": head_size,
        "attention.layer_norm_rms_epsilon": 1e-6,
        **(further or {}),
    }
    q, kv = heads * head_size, kv_heads * head_size
    plain = Kind.Q4_K if quantized else Kind.F16
    finer = Kind.Q6_K if quantized else Kind.F16
    tensors = [("token_embd.weight", (vocabulary, embedding), finer), ("output_norm.weight", (embedding,), Kind.F32)]
    tensors += [] if tied else [("output.weight", (vocabulary, embedding), finer)]
    for layer in range(layers):
        more = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
        own: list[Tensor] = [
            ("attn_norm", (embedding,), Kind.F32),
            ("attn_q", (q, embedding), plain),
            ("attn_k", (kv, embedding), plain),
            ("attn_v", (kv, embedding), finer if more else plain),
            ("attn_output", (embedding, q), plain),
            ("ffn_norm", (embedding,), Kind.F32),
            ("ffn_gate", (feed_forward, embedding), plain),
            ("ffn_up", (feed_forward, embedding), plain),
            ("ffn_down", (embedding, feed_forward), finer if more else plain),
        ]
        if architecture in ("gemma3", "qwen3"):
            own += [("attn_q_norm", (head_size,), Kind.F32), ("attn_k_norm", (head_size,), Kind.F32)]
        if architecture == "gemma3":
            own += [(name, (embedding,), Kind.F32) for name in ("post_attention_norm", "post_ffw_norm")]
        tensors += [(f"blk.{layer}.{name}.weight", shape, kind) for name, shape, kind in own]
    return Spec(architecture, metadata, tensors, vocabulary)


def gemma3_27b() -> Spec:
    """The sizes of Gemma 3 27B at Q4_K_M."""
    return dense(
        "gemma3",
        layers=62,
        embedding=5376,
        feed_forward=21504,
        heads=32,
        kv_heads=16,
        head_size=128,
        vocabulary=262208,
        quantized=True,
        tied=True,
        further={"attention.sliding_window": 1024},
    )


def qwen3_32b() -> Spec:
    """The sizes of Qwen3 32B at Q4_K_M."""
    return dense(
        "qwen3",
        layers=64,
        embedding=5120,
        feed_forward=25600,
        heads=64,
        kv_heads=8,
        head_size=128,
        vocabulary=151936,
        context=40960,
        quantized=True,
    )


# -- windows, recurrent layers, MLA ----------------------------------------------------------------


def gemma4() -> Spec:
    """Windowed layers have smaller heads and more of them; the last two layers share the cache of earlier ones."""
    embedding, layers, heads = 128, 8, 4
    windowed = [index % 3 != 2 for index in range(layers)]
    kv_heads = [2 if inside else 1 for inside in windowed]
    metadata = _base(layers, embedding) | {
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": 128,
        "attention.value_length": 128,
        "attention.key_length_swa": 64,
        "attention.value_length_swa": 64,
        "attention.sliding_window": 300,
        "attention.sliding_window_pattern": windowed,
        "attention.shared_kv_layers": 2,
        "rope.dimension_count": 128,
        "rope.dimension_count_swa": 64,
        "embedding_length_per_layer_input": 0,
    }
    tensors = [*_ends(embedding), ("rope_freqs.weight", (64,), Kind.F32)]
    for layer, inside in enumerate(windowed):
        head = 64 if inside else 128
        kv = kv_heads[layer] * head
        own = {
            "attn_norm": (embedding,),
            "attn_q": (heads * head, embedding),
            "attn_k": (kv, embedding),
            "attn_v": (kv, embedding),
            "attn_output": (embedding, heads * head),
            "attn_q_norm": (head,),
            "attn_k_norm": (head,),
            "post_attention_norm": (embedding,),
            **_feed_forward(embedding),
            "post_ffw_norm": (embedding,),
        }
        tensors += _layer(layer, own)
    return Spec("gemma4", metadata, tensors)


def granite_hybrid(
    *, embedding: int = 128, layers: int = 6, heads: int = 4, state: int = 32, ranks: int = 8, head: int = 64
) -> Spec:
    """Mamba2 layers, and attention in every third."""
    inner, groups, kernel = 2 * embedding, 1, 4
    kv_heads = [2 if index % 3 == 2 else 0 for index in range(layers)]
    metadata = _base(layers, embedding) | {
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.dimension_count": head,
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": ranks,
        "ssm.group_count": groups,
        "attention.scale": 1.0,
        "embedding_scale": 1.0,
        "residual_scale": 1.0,
        "logit_scale": 1.0,
    }
    tensors = _ends(embedding)
    for layer, count in enumerate(kv_heads):
        own: dict[str, tuple[int, ...]] = {"attn_norm": (embedding,), **_feed_forward(embedding)}
        if count:
            own |= _attention(embedding, heads * head, count * head)
        else:
            mixed = inner + 2 * groups * state
            own |= {
                "ssm_in": (2 * inner + 2 * groups * state + ranks, embedding),
                "ssm_conv1d": (mixed, kernel),
                "ssm_norm": (groups, inner // groups),
                "ssm_out": (embedding, inner),
            }
            tensors += [
                (f"blk.{layer}.ssm_conv1d.bias", (mixed,), Kind.F32),
                (f"blk.{layer}.ssm_dt.bias", (ranks,), Kind.F32),
                (f"blk.{layer}.ssm_a", (ranks, 1), Kind.F32),
                (f"blk.{layer}.ssm_d", (ranks, 1), Kind.F32),
            ]
        tensors += _layer(layer, own)
    return Spec("granitehybrid", metadata, tensors)


def lfm2() -> Spec:
    """Short convolutions, and attention in every other layer."""
    embedding, layers, heads, head = 256, 6, 4, 64
    kv_heads = [2 if index % 2 else 0 for index in range(layers)]
    metadata = _base(layers, embedding) | {
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "rope.dimension_count": head,
        "shortconv.l_cache": 3,
    }
    tensors: list[Tensor] = [("token_embd.weight", (VOCABULARY, embedding), Kind.F16)]
    tensors += [("token_embd_norm.weight", (embedding,), Kind.F32)]
    for layer, count in enumerate(kv_heads):
        own: dict[str, tuple[int, ...]] = {"attn_norm": (embedding,), **_feed_forward(embedding)}
        if count:
            own |= _attention(embedding, embedding, count * head)
            own |= {"attn_q_norm": (head,), "attn_k_norm": (head,)}
        else:
            own |= {
                "shortconv.conv": (embedding, 3),
                "shortconv.in_proj": (3 * embedding, embedding),
                "shortconv.out_proj": (embedding, embedding),
            }
        tensors += _layer(layer, own)
    return Spec("lfm2", metadata, tensors)


def qwen35(
    *,
    embedding: int = 128,
    feed_forward: int = 128,
    trunk: int = 8,
    heads: int = 4,
    kv_heads: int = 2,
    head: int = 128,
    state: int = 32,
    key_heads: int = 2,
    value_heads: int = 4,
    vocabulary: int = VOCABULARY,
) -> Spec:
    """Gated delta nets with attention in every fourth layer, and a further layer that predicts a second token."""
    kernel, keys, values = 4, state * key_heads, state * value_heads
    metadata = _base(trunk + 1, embedding) | {
        "feed_forward_length": feed_forward,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.dimension_count": 32,
        "rope.dimension_sections": [4, 6, 6, 0],
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": values,
        "ssm.state_size": state,
        "ssm.time_step_rank": value_heads,
        "ssm.group_count": key_heads,
        "nextn_predict_layers": 1,
    }
    tensors = _ends(embedding, vocabulary)
    for layer in range(trunk + 1):
        own: dict[str, tuple[int, ...]] = {"attn_norm": (embedding,), "post_attention_norm": (embedding,)}
        own |= {name: shape for name, shape in _feed_forward(embedding, feed_forward).items() if name != "ffn_norm"}
        if layer % 4 == 3 or layer == trunk:
            own |= _attention(embedding, heads * head, kv_heads * head)
            own |= {"attn_q": (2 * heads * head, embedding), "attn_q_norm": (head,), "attn_k_norm": (head,)}
        else:
            own |= {
                "attn_qkv": (2 * keys + values, embedding),
                "attn_gate": (values, embedding),
                "ssm_conv1d": (2 * keys + values, kernel),
                "ssm_beta": (value_heads, embedding),
                "ssm_alpha": (value_heads, embedding),
                "ssm_norm": (state,),
                "ssm_out": (embedding, values),
            }
            tensors += [(f"blk.{layer}.{name}", (value_heads,), Kind.F32) for name in ("ssm_dt.bias", "ssm_a")]
        if layer == trunk:
            own |= {"nextn.eh_proj": (embedding, 2 * embedding), "nextn.enorm": (embedding,)}
            own |= {"nextn.hnorm": (embedding,)}
        tensors += _layer(layer, own)
    return Spec("qwen35", metadata, tensors, vocabulary)


def deepseek2(*, embedding: int = 256, feed_forward: int = 256, layers: int = 4, heads: int = 4) -> Spec:
    """MLA: one key of 576 for each cell, the value being its first 512."""
    low, rope, nope, value = 512, 64, 128, 128
    metadata = _base(layers, embedding) | {
        "feed_forward_length": feed_forward,
        "attention.head_count": heads,
        "attention.head_count_kv": 1,
        "attention.key_length": low + rope,
        "attention.value_length": low,
        "attention.key_length_mla": nope + rope,
        "attention.value_length_mla": value,
        "attention.kv_lora_rank": low,
        "attention.q_lora_rank": 64,
        "rope.dimension_count": rope,
        "leading_dense_block_count": layers,
        "expert_feed_forward_length": 64,
        "expert_shared_count": 1,
        "expert_count": 2,
        "expert_used_count": 1,
        "expert_weights_scale": 1.0,
        "expert_gating_func": 1,
        "vocab_size": VOCABULARY,
    }
    tensors = _ends(embedding)
    for layer in range(layers):
        own = {
            "attn_norm": (embedding,),
            "attn_q_a": (64, embedding),
            "attn_q_a_norm": (64,),
            "attn_q_b": (heads * (nope + rope), 64),
            "attn_kv_a_mqa": (low + rope, embedding),
            "attn_kv_a_norm": (low,),
            "attn_k_b": (heads, low, nope),
            "attn_v_b": (heads, value, low),
            "attn_output": (embedding, heads * value),
            **_feed_forward(embedding, feed_forward),
        }
        tensors += _layer(layer, own)
    return Spec("deepseek2", metadata, tensors)


def _base(layers: int, embedding: int) -> dict[str, Any]:
    return {
        "context_length": 131072,
        "embedding_length": embedding,
        "block_count": layers,
        "feed_forward_length": embedding,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }


def _ends(embedding: int, vocabulary: int = VOCABULARY) -> list[Tensor]:
    return [
        ("token_embd.weight", (vocabulary, embedding), Kind.F16),
        ("output_norm.weight", (embedding,), Kind.F32),
        ("output.weight", (vocabulary, embedding), Kind.F16),
    ]


def _attention(embedding: int, q: int, kv: int) -> dict[str, tuple[int, ...]]:
    return {
        "attn_q": (q, embedding),
        "attn_k": (kv, embedding),
        "attn_v": (kv, embedding),
        "attn_output": (embedding, q),
    }


def _feed_forward(embedding: int, width: int = 0) -> dict[str, tuple[int, ...]]:
    width = width or embedding
    widening = (width, embedding)
    return {"ffn_norm": (embedding,), "ffn_gate": widening, "ffn_up": widening, "ffn_down": (embedding, width)}


def _layer(layer: int, shapes: dict[str, tuple[int, ...]]) -> Iterator[Tensor]:
    """Norms and what a convolution or a state needs are F32, matrices F16."""
    for name, shape in shapes.items():
        small = len(shape) == 1 or name in ("ssm_conv1d", "ssm_norm", "shortconv.conv")
        yield f"blk.{layer}.{name}.weight", shape, Kind.F32 if small else Kind.F16


TINY: dict[str, Callable[[], Spec]] = {
    "mha": lambda: dense(heads=4, kv_heads=4),
    "gqa": lambda: dense(heads=8, kv_heads=2, head_size=128),
    "window": lambda: dense(
        "gemma3", layers=8, heads=4, kv_heads=2, head_size=128, further={"attention.sliding_window": 512}
    ),
    "window-shared": gemma4,
    "hybrid-mamba2": granite_hybrid,
    "hybrid-conv": lfm2,
    "hybrid-delta": qwen35,
    "mla": deepseek2,
}
"""Small models, one for each way in which llama.cpp lays out a cache."""
