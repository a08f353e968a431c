"""What Ollama's compat layer makes of the files in its library.

Files that Ollama converted itself name some architectures, keys and layers otherwise than llama.cpp does. Ollama's
build of llama.cpp, llama-server too, translates them on loading (llama/compat/llama-ollama-compat.cpp). Here is what
that changes of a model's sizes; tokenizers and the names of tensors change as well, and matter to nothing here. Facts
of Ollama v0.33.0-rc2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""tensors by name; a shape has ggml's order"""

RENAMES = {
    "deepseekocr": "deepseek2-ocr",
    "glm4moelite": "deepseek2",
    "glmocr": "glm4",
    "gptoss": "gpt-oss",
    "olmo3": "olmo2",
    "qwen25vl": "qwen2vl",
}
"""architectures, and the prefix of their keys, that are another one's in llama.cpp"""

_QWEN35_KEYS = ("vision.block_count", "image_token_id", "ssm.v_head_reordered", "rope.mrope_interleaved")
_LAYER = re.compile(r"blk\.(\d{1,3})\.")
_MTP_LAYER = re.compile(r"mtp\.layers\.(\d{1,3})\.")


def translated(metadata: Mapping[str, Any], shapes: Shapes, further: Mapping[str, str]) -> dict[str, Any]:
    """The metadata as llama.cpp reads them. `further` are renames beyond `RENAMES`. A file that needs nothing stays
    as it is; without `shapes` (a header that was read in part), what follows from tensors is not done."""
    found = dict(metadata)
    name = found.get("general.architecture")
    if not isinstance(name, str):
        return found
    if name == "gemma3" and "dense.0.weight" in shapes:
        return _renamed(found, name, "gemma-embedding")
    if name == "nemotron_h_omni" and _has_any(shapes, "v.", "a.", "mm."):
        experts = any(_count(found.get(f"{name}.{key}")) for key in ("expert_count", "expert_used_count"))
        return _renamed(found, name, "nemotron_h_moe" if experts else "nemotron_h")
    if new := RENAMES.get(name) or further.get(name):
        found = _renamed(found, name, new)
    if name == "glm4moelite":
        _absorb(found)
    elif name in ("deepseekocr", "gptoss"):
        tensor, axis = ("blk.1.ffn_down_exps.weight", 0) if name == "deepseekocr" else ("blk.0.ffn_gate_exps.weight", 1)
        if len(shape := shapes.get(tensor, ())) > axis:
            found.setdefault(f"{new}.expert_feed_forward_length", shape[axis])
    elif name == "lfm2" and "output_norm.weight" in shapes and "token_embd_norm.weight" not in shapes:
        if len(shape := shapes.get("blk.0.ffn_gate.weight", ())) > 1:
            found["lfm2.feed_forward_length"] = shape[1]
    elif name in ("qwen35", "qwen35moe") and _is_ollamas_qwen35(found, shapes, name):
        _collapse(found, f"{name}.attention.head_count_kv", 2)
        _add_predicting_layers(found, shapes, name)
    elif name == "qwen3next" and any(tensor.endswith(".ssm_dt") for tensor in shapes):
        _collapse(found, f"{name}.attention.head_count_kv", 0)
    return found


def _renamed(metadata: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """With the keys of `old` under `new`; those that are there keep no value of their own."""
    moved = {new + key[len(old) :]: value for key, value in metadata.items() if key.startswith(f"{old}.")}
    return {**metadata, **moved, "general.architecture": new}


def _absorb(metadata: dict[str, Any]) -> None:
    """GLM 4.7 Flash states the heads of MLA before its matrices are absorbed, llama.cpp reads those after."""
    key = "deepseek2.attention."
    rank, rope = metadata.get(f"{key}kv_lora_rank"), metadata.get("deepseek2.rope.dimension_count")
    head = metadata.get(f"{key}key_length")
    metadata[f"{key}head_count_kv"] = 1
    if isinstance(rank, int) and isinstance(rope, int):
        metadata |= {f"{key}key_length": rank + rope, f"{key}value_length": rank}
    if isinstance(head, int):
        metadata |= {f"{key}key_length_mla": head, f"{key}value_length_mla": head}


def _is_ollamas_qwen35(metadata: Mapping[str, Any], shapes: Shapes, name: str) -> bool:
    keys = _QWEN35_KEYS if name == "qwen35" else (*_QWEN35_KEYS, "feed_forward_length")
    return any(f"{name}.{key}" in metadata for key in keys) or _has_any(shapes, "mtp.", "v.")


def _collapse(metadata: dict[str, Any], key: str, least: int) -> None:
    """A number for each layer, 0 for a recurrent one, becomes one: llama.cpp knows which layers are recurrent."""
    if isinstance(listed := metadata.get(key), tuple) and (most := max(map(_count, listed), default=0) or least):
        metadata[key] = most


def _add_predicting_layers(metadata: dict[str, Any], shapes: Shapes, name: str) -> None:
    """Layers that predict further tokens lie in tensors mtp.*; llama.cpp counts them among the others."""
    if not _has_any(shapes, "mtp.") or any(".nextn." in tensor for tensor in shapes):
        return
    own = max((int(match[1]) + 1 for match in map(_LAYER.match, shapes) if match), default=0)
    layers = own or _count(metadata.get(f"{name}.block_count"))
    count = max((int(match[1]) + 1 for match in map(_MTP_LAYER.match, shapes) if match), default=1)
    metadata |= {f"{name}.nextn_predict_layers": count, f"{name}.block_count": layers + count}


def _has_any(names: Iterable[str], *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in names)


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
