"""A C surface of our own in the layout of llama.cpp, with everything that headers are known to hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from toolchain.upstream.surface.snapshot import take
from toolchain.upstream.surface.surface import Snapshot
from toolchain.upstream.surface.trees import FolderTree

GGML = """
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#define GGML_API extern
#define GGML_OLD(func, hint) func __attribute__((deprecated(hint)))
#define GGML_MAX_DIMS 4
#define GGML_LIMIT (GGML_MAX_DIMS * 16u - 1)
#define GGML_BIG 0xffffffff00000000ull
#define GGML_SCALE 0.5
#define GGML_NAME "tile"
#define GGML_LOOP(i) for (int i = 0; i < GGML_MAX_DIMS; ++i)
#define GGML_NOTHING
enum ggml_type { GGML_TYPE_F32 = 0, GGML_TYPE_F16 = 1, GGML_TYPE_Q8 = 8, GGML_TYPE_COUNT };
enum { GGML_FLAG_IN = 1 << 0, GGML_FLAG_OUT = 1 << 3, GGML_FLAG_NONE = -7 };
typedef enum { GGML_SHAPE_ROUND, GGML_SHAPE_SQUARE } ggml_shape;
struct ggml_hidden;
typedef void (*ggml_log)(enum ggml_type type, const char * text, void * data);
typedef struct { int16_t radius; uint8_t codes[3]; } ggml_block;
struct ggml_caps { bool fast, wide; };
struct ggml_node {
    enum ggml_type type;
    int64_t ne[GGML_MAX_DIMS];
    struct ggml_node * from[2][3];
    unsigned ready : 1, level : 5;
    int64_t deep : 33;
    union { double real; struct { int32_t low, high; } words; };
    struct { char tag; ggml_block block; } named;
    struct ggml_caps caps;
    ggml_block blocks[2];
    ggml_log log;
    char rest[5];
};
union ggml_any { long double wide; void * pointer; char bytes[3]; };
GGML_API struct ggml_node * ggml_new(struct ggml_hidden * ctx, enum ggml_type type, const int64_t * ne);
GGML_OLD(GGML_API int ggml_count(const struct ggml_node * node), "use ggml_total");
GGML_API void ggml_write(FILE * to, union ggml_any what, ...);
GGML_API ggml_log ggml_set_log(ggml_log log);
GGML_API const int ggml_version;
static inline int ggml_twice(int x) { return 2 * x; }
"""

LLAMA = """
#pragma once
#include "ggml.h"
typedef int32_t llama_token;
struct llama_params { float rope; struct ggml_caps caps; bool (*stop)(void *); void * data; };
GGML_API struct llama_params llama_default_params(void);
GGML_API llama_token llama_first(const struct llama_params * params);
"""


def tree(files: Mapping[str, str], root: Path) -> FolderTree:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return FolderTree(root)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., FolderTree]:
    """Makes a tree: the headers above with pieces of text replaced, and further files."""
    made = 0

    def make(*replaced: tuple[str, str], **more: str) -> FolderTree:
        nonlocal made
        made += 1
        files = {"ggml/include/ggml.h": GGML, "include/llama.h": LLAMA}
        for old, new in replaced:
            assert any(old in text for text in files.values()), old
            files = {name: text.replace(old, new) for name, text in files.items()}
        return tree({**files, **more}, tmp_path / f"tree{made}")

    return make


@pytest.fixture
def surface(folder: Callable[..., FolderTree]) -> Callable[..., Snapshot]:
    """Takes the snapshot of such a tree."""

    def make(*replaced: tuple[str, str], platform: str = "linux-x86_64") -> Snapshot:
        return take(folder(*replaced), platform)

    return make
