"""Small models as Ollama's own converter writes them, which only its compat layer makes llama.cpp's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from . import models
from .models import Kind, Spec, Tensor


def glm4moelite() -> Spec:
    """GLM 4.7 Flash: MLA with its heads before they are absorbed."""
    expected = models.deepseek2()
    changes = {
        "attention.head_count_kv": 4,
        "attention.key_length": 192,
        "attention.value_length": 192,
        "attention.key_length_mla": 576,
        "attention.value_length_mla": 512,
    }
    shapes = {"attn_v_b": (4, 192, 512), "attn_output": (256, 4 * 192)}  # heads of 192 for V, too
    tensors = [(name, shapes.get(name.split(".")[-2], shape), kind) for name, shape, kind in expected.tensors]
    return Spec("glm4moelite", expected.metadata | changes, tensors)


def qwen25vl() -> Spec:
    """Qwen2.5-VL, without its part that sees."""
    return models.dense(
        "qwen25vl", heads=2, kv_heads=1, further={"rope.mrope_section": [8, 12, 12], "rope.freq_base": 1e6}
    )


def olmo3() -> Spec:
    """Windows in three of four layers, and norms of queries and keys."""
    layers, norms = 8, ("attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm")
    further = {"attention.sliding_window": 300, "rope.freq_base": 10000.0}
    spec = models.dense("olmo3", layers=layers, heads=2, kv_heads=2, further=further)
    return Spec("olmo3", spec.metadata, [*_without(spec, "attn_norm", "ffn_norm"), *_each(layers, norms, (128,))])


def gptoss() -> Spec:
    """Windows in every other layer, experts, and attention sinks."""
    further = {
        "attention.sliding_window": 128,
        "expert_count": 2,
        "expert_used_count": 1,
        "rope.scaling.factor": 32.0,
        "rope.scaling.original_context_length": 4096,
    }
    spec = models.dense("gptoss", further=further)
    tensors = [one for one in _without(spec, "attn_output", "ffn_norm") if ".ffn_" not in one[0]]
    tensors += _each(4, ("ffn_norm",), (128,))
    for layer in range(4):
        small = {"attn_sinks": 4, "attn_q.bias": 256, "attn_k.bias": 128, "attn_v.bias": 128, "attn_out.bias": 128}
        tensors += [(f"blk.{layer}.{name}", (width,), Kind.F32) for name, width in small.items()]
        tensors.append((f"blk.{layer}.attn_out.weight", (128, 256), Kind.F16))
        tensors += [(f"blk.{layer}.ffn_gate_inp.{part}", shape, Kind.F32) for part, shape in _ROUTER.items()]
        for name in ("gate", "up", "down"):
            tensors.append((f"blk.{layer}.ffn_{name}_exps.weight", (2, 128, 128), Kind.F16))
            tensors.append((f"blk.{layer}.ffn_{name}_exps.bias", (2, 128), Kind.F32))
    return Spec("gptoss", spec.metadata, tensors)


def qwen35() -> Spec:
    """Qwen3.5, whose layer that predicts a second token lies apart, and counts nowhere."""
    spec = models.qwen35()
    changes = {
        "block_count": 8,
        "attention.head_count_kv": [0, 0, 0, 2] * 2,
        "ssm.v_head_reordered": True,
        "rope.dimension_sections": [4, 6, 6],
    }
    metadata = {key: value for key, value in spec.metadata.items() if key != "nextn_predict_layers"}
    return Spec("qwen35", metadata | changes, [(_apart(name), shape, kind) for name, shape, kind in spec.tensors])


_ROUTER = {"weight": (2, 128), "bias": (2,)}
_APART = {
    "blk.8.nextn.eh_proj.weight": "mtp.fc.weight",
    "blk.8.nextn.enorm.weight": "mtp.pre_fc_norm_embedding.weight",
    "blk.8.nextn.hnorm.weight": "mtp.pre_fc_norm_hidden.weight",
}


def _apart(name: str) -> str:
    return _APART.get(name) or name.replace("blk.8.", "mtp.layers.0.").replace("ssm_dt.bias", "ssm_dt")


def _without(spec: Spec, *names: str) -> list[Tensor]:
    return [one for one in spec.tensors if one[0].split(".")[-2] not in names]


def _each(layers: int, names: Iterable[str], shape: tuple[int, ...]) -> list[Tensor]:
    return [(f"blk.{layer}.{name}.weight", shape, Kind.F32) for layer in range(layers) for name in names]


OLLAMA: dict[str, Callable[[], Spec]] = {
    "glm4moelite": glm4moelite,
    "gptoss": gptoss,
    "olmo3": olmo3,
    "qwen25vl": qwen25vl,
    "qwen35-ollama": qwen35,
}
HEADS: dict[str, Callable[[], Spec]] = {
    f"heads-{size}": partial(models.dense, head_size=size) for size in (80, 96, 112, 192)
}
