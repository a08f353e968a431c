"""Files of Ollama's own converter are read as its compat layer makes llama.cpp see them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolchain.core.errors import ArchitectureUnknown
from toolchain.models.memory import geometry, gguf
from toolchain.models.memory.dialect import BUILT_IN, Dialect

from . import models, ollama_models
from .conftest import load
from .models import Kind, Spec

WINDOW = {"attention.sliding_window": 128}


def written(folder: Path, spec: Spec) -> Path:
    return models.write(folder / f"{spec.architecture}.gguf", spec, data=False)


def renamed(spec: Spec, architecture: str, **changes: Any) -> Spec:
    """The same model under another name; a change to None removes a key."""
    changed = {**spec.metadata, **{key.replace("__", "."): value for key, value in changes.items()}}
    kept = {key: value for key, value in changed.items() if value is not None}
    return Spec(architecture, kept, list(spec.tensors), spec.vocabulary)


@pytest.mark.parametrize(
    ("theirs", "ours", "further"),
    [
        ("gptoss", "gpt-oss", WINDOW),
        ("olmo3", "olmo2", WINDOW),
        ("qwen25vl", "qwen2vl", {}),
        ("glmocr", "glm4", {}),
        ("deepseekocr", "deepseek2-ocr", {}),
    ],
)
def test_other_names(tmp_path: Path, theirs: str, ours: str, further: dict[str, Any]) -> None:
    found = geometry.read(load(written(tmp_path, models.dense(theirs, further=further))))
    expected = geometry.read(load(written(tmp_path, models.dense(ours, further=further))))
    assert found == expected
    assert (found.architecture, found.assumed) == (ours, "")


@pytest.mark.parametrize(
    ("name", "architecture", "cached"),
    [
        ("glm4moelite", "deepseek2", [(index, 576, 0, False) for index in range(4)]),
        ("gptoss", "gpt-oss", [(index, 128, 128, index % 2 == 0) for index in range(4)]),
        ("olmo3", "olmo2", [(index, 128, 128, index % 4 != 3) for index in range(8)]),
        ("qwen25vl", "qwen2vl", [(index, 64, 64, False) for index in range(4)]),
        ("qwen35-ollama", "qwen35", [(3, 256, 256, False), (7, 256, 256, False)]),
    ],
)
def test_what_the_compat_layer_makes_llama_cpp_cache(
    tmp_path: Path, name: str, architecture: str, cached: list[tuple[int, int, int, bool]]
) -> None:
    """As llama-server's log and its saved slots have it (`bench.kvbytes`)."""
    found = geometry.read(load(written(tmp_path, ollama_models.OLLAMA[name]())))
    assert found.architecture == architecture
    assert [(layer.index, layer.k, layer.v, layer.windowed) for layer in found.cached] == cached
    assert (found.mla, found.sinks) == (name == "glm4moelite", name == "gptoss")


@pytest.mark.parametrize(("experts", "ours"), [(2, "nemotron_h_moe"), (0, "nemotron_h")])
def test_a_nemotron_that_sees_and_hears(tmp_path: Path, experts: int, ours: str) -> None:
    changes = {"feed_forward_length": [0, 0, 0, 128, 128, 128], "expert_used_count": experts, "vision__block_count": 9}
    plain = renamed(models.granite_hybrid(), "nemotron_h_omni", **changes)
    with pytest.raises(ArchitectureUnknown):
        geometry.read(load(written(tmp_path, plain)))
    plain.tensors.append(("v.patch_embd.weight", (8, 8), Kind.F16))
    header = load(written(tmp_path, plain))
    found = geometry.read(header)
    assert (found.architecture, [layer.index for layer in found.cached], found.recurrent_layers) == (ours, [2], 2)


def test_an_embedding_model_that_is_called_gemma3(tmp_path: Path) -> None:
    spec = models.dense("gemma3", further={"attention.sliding_window": 512})
    assert len(geometry.read(load(written(tmp_path, spec))).cached) == 4
    spec.tensors.append(("dense.0.weight", (128, 128), Kind.F16))
    with pytest.raises(ArchitectureUnknown, match="gemma-embedding: it has no KV cache"):
        geometry.read(load(written(tmp_path, spec)))


@pytest.mark.parametrize("layers", [1, 2])
def test_layers_of_qwen_3_5_that_predict_further_tokens(tmp_path: Path, layers: int) -> None:
    """Ollama keeps them in tensors of their own, with a list of K and V heads over the others alone."""
    spec = models.qwen35()
    trunk = [one for one in spec.tensors if not one[0].startswith("blk.8.")]
    changes = {"block_count": 8, "nextn_predict_layers": None, "attention__head_count_kv": [0, 0, 0, 2] * 2}
    theirs = Spec("qwen35", renamed(spec, "qwen35", **changes).metadata, trunk)
    theirs.tensors.extend((f"mtp.layers.{layer}.norm.weight", (128,), Kind.F32) for layer in range(layers))
    found = geometry.read(load(written(tmp_path, theirs)))
    assert (found.layers, [(layer.index, layer.k) for layer in found.cached]) == (8 + layers, [(3, 256), (7, 256)])
    assert found.recurrent_layers == 6


def _lfm2(spec: Spec) -> Spec:
    spec.tensors[1] = ("output_norm.weight", *spec.tensors[1][1:])
    return renamed(spec, "lfm2", feed_forward_length=12288)


def _gptoss(spec: Spec) -> Spec:
    spec.tensors.append(("blk.0.ffn_gate_exps.weight", (2, 96, 128), Kind.F16))
    return renamed(spec, "gptoss", expert_used_count=4)


@pytest.mark.parametrize(("change", "make", "width"), [(_lfm2, models.lfm2, 256), (_gptoss, models.dense, 4 * 96)])
def test_widths_that_only_the_tensors_have(
    tmp_path: Path, change: Callable[[Spec], Spec], make: Callable[[], Spec], width: int
) -> None:
    further = {} if make is models.lfm2 else {"attention.sliding_window": 128}
    spec = change(make())
    path = written(tmp_path, Spec(spec.architecture, spec.metadata | further, spec.tensors))
    assert geometry.read(load(path)).feed_forward == width


def test_architectures_that_only_a_tree_knows(tmp_path: Path) -> None:
    path = str(written(tmp_path, models.dense("nova9", further=WINDOW)))
    with pytest.raises(ArchitectureUnknown):
        geometry.read(gguf.load(path))
    tree = Dialect(types=BUILT_IN.types, renames={"nova9": "gemma3"})
    assert geometry.read(gguf.load(path, tree)).architecture == "gemma3"


@pytest.mark.parametrize(
    ("architecture", "further", "words"),
    [
        ("mllama", {"attention.cross_attention_layers": [1, 3]}, "its cross-attention is not llama.cpp's"),
        ("nova", {"attention.cross_attention_layers": [1, 3]}, "cross_attention_layers shows"),
        ("nova", {"pooling_type": 1}, "pooling_type shows"),
        ("nova", {"attention.causal": False}, "causal shows"),
        ("qwen4exp", {"ssm.state_size": 128}, "caches of compressed keys are not modelled"),
    ],
)
def test_what_is_no_plain_attention_is_not_taken_for_it(
    tmp_path: Path, architecture: str, further: dict[str, Any], words: str
) -> None:
    with pytest.raises(ArchitectureUnknown, match=words):
        geometry.read(load(written(tmp_path, models.dense(architecture, further=further))))
