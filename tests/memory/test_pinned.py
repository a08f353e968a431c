"""Tensor types and names of architectures, as trees of llama.cpp and Ollama state them."""

from __future__ import annotations

import os
from pathlib import Path

import gguf as reference

from toolchain.core.config import load as load_config
from toolchain.models.memory import ollama_compat, pinned
from toolchain.models.memory.dialect import BUILT_IN, TensorType

# Written for these tests in the spelling of both projects.
GGML_H = """
enum ggml_type {
    GGML_TYPE_F16     = 1,
    // GGML_TYPE_Q4_2 = 4, support has been removed
    GGML_TYPE_Q4_K    = 12,
    GGML_TYPE_NOVA    = 77, // four blocks
    GGML_TYPE_TURBO9  = 78,
    GGML_TYPE_ODD     = 79,
    GGML_TYPE_HUGE    = 80,
};
"""
COMMON_H = """
#define QK_K 256
#define K_SCALE_SIZE 12
#define QK_NOVA 128   // values
#define NOVA_PART (QK_NOVA / 4)
#define AROUND AROUND
#define POWER 9**9**9**9
typedef struct { uint8_t qs[QK_NOVA / 2]; } block_nova;
static_assert(sizeof(block_nova) == 2*sizeof(ggml_half) + QK_NOVA / 2 - NOVA_PART / 32, "wrong nova block size");
static_assert(sizeof(block_q4_K) == 2*sizeof(ggml_half) + K_SCALE_SIZE + QK_K/2, "wrong q4_K block size/padding");
static_assert(sizeof(block_turbo9) == sizeof(float), "wrong");
"""
GGML_C = """
    [GGML_TYPE_F16] = { .type_name = "f16", .blck_size = 1, .type_size = sizeof(ggml_fp16_t), },
    [4] = { .type_name = "DEPRECATED", .blck_size = 0, .type_size = 0, },
    [GGML_TYPE_Q4_K] = {
        .type_name                = "q4_K",
        .blck_size                = QK_K,
        .type_size                = sizeof(block_q4_K),
        .to_float                 = (ggml_to_float_t) dequantize_row_q4_K,
    },
    [GGML_TYPE_NOVA] = { .blck_size = QK_NOVA, .type_size = sizeof(block_nova), },
    [GGML_TYPE_TURBO9] = { .blck_size = 64, .type_size = sizeof(block_turbo9), },
    [GGML_TYPE_ODD] = { .blck_size = AROUND, .type_size = sizeof(block_odd), },
    [GGML_TYPE_HUGE] = { .blck_size = POWER, .type_size = 4, },
"""
COMPAT = """
void handle_gptoss(const llama_model_loader * ml, gguf_context * meta,
                   ggml_context * ctx, std::string & arch_name) {
    if (!detect(meta)) return;
    gguf_set_val_str(meta, "general.architecture", "gpt-oss");
    rename_kv_prefix(meta, "gptoss.", "gpt-oss.");
}
void handle_embedding(gguf_context * meta) {
    gguf_set_val_str(meta, "general.architecture", "gemma-embedding");
}
void handle_nova(gguf_context * meta) {
    gguf_set_val_str(meta, "general.architecture", "llama");
}
void handle_nova_clip(gguf_context * meta) {
    gguf_set_val_str(meta, "general.architecture", "clip");
}
bool translate_metadata(gguf_context * meta, std::string & arch_name) {
    if (arch_name == "gemma3")   handle_embedding(meta);
    if (arch_name == "gptoss")   handle_gptoss   (ml, meta, ctx, arch_name);
    if (arch_name == "nova" || arch_name == "novamoe")
                                 handle_nova     (meta);
    if (arch_name == "laguna")   handle_laguna   (meta, ctx);
}
"""


def _trees(workspace: Path, name: str, age: float = 0) -> Path:
    root = workspace / "scratch" / name
    files = {
        "llama.cpp/ggml/include/ggml.h": GGML_H,
        "llama.cpp/ggml/src/ggml-common.h": COMMON_H,
        "llama.cpp/ggml/src/ggml.c": GGML_C,
        "ollama/llama/compat/llama-ollama-compat.cpp": COMPAT,
    }
    for place, content in files.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(content)
    os.utime(root / "llama.cpp", (1e9 - age, 1e9 - age))
    return root


def test_types_of_a_tree(tmp_path: Path) -> None:
    root = _trees(tmp_path, "new")
    found = pinned.tensor_types(root / "llama.cpp")
    assert found == {
        1: TensorType(name="F16", block=1, bytes=2),
        12: TensorType(name="Q4_K", block=256, bytes=144),
        77: TensorType(name="NOVA", block=128, bytes=2 * 2 + 64 - 1),
        78: TensorType(name="TURBO9", block=64, bytes=4),
    }
    assert reference.GGML_QUANT_SIZES[reference.GGMLQuantizationType.Q4_K] == (256, 144)


def test_names_of_a_tree(tmp_path: Path) -> None:
    """Not those that llama.cpp has, too: only some of their files become another one."""
    found = pinned.renames(_trees(tmp_path, "new") / "ollama")
    assert found == {"gptoss": "gpt-oss", "nova": "llama", "novamoe": "llama"}
    assert ollama_compat.RENAMES["gptoss"] == "gpt-oss"


def test_the_newest_trees_of_the_workspace(tmp_path: Path) -> None:
    config = load_config(environ={}, flags={"workspace": str(tmp_path)})
    assert pinned.dialect(config, []) == BUILT_IN
    (_trees(tmp_path, "old", age=9) / "llama.cpp/ggml/include/ggml.h").write_text("")
    _trees(tmp_path, "new")
    found = pinned.dialect(config, ["turbo9"])
    assert set(found.types) - set(BUILT_IN.types) == {77}
    assert (found.source, found.renames["nova"]) == ("the llama.cpp of new", "llama")


def test_trees_that_are_not_as_expected(tmp_path: Path) -> None:
    root = _trees(tmp_path, "new")
    (root / "llama.cpp/ggml/src/ggml.c").unlink()
    (root / "ollama/llama/compat/llama-ollama-compat.cpp").write_bytes(b"\xff" * 100)
    found = pinned.dialect(load_config(environ={}, flags={"workspace": str(tmp_path)}), [])
    assert (found.types, found.renames) == (BUILT_IN.types, {})
    file = tmp_path / "file"
    file.write_text("")
    assert pinned.dialect(load_config(environ={}, flags={"workspace": str(file)}), []) == BUILT_IN
