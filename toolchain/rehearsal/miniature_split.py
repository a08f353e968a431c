"""The miniature llama.cpp with the Metal layout that llama.cpp has since August 2026.

A library for each file of kernels instead of one; other parameters where host code begins an encoding and opens a
device. Made from the miniature's own files; `tests/upstream/split` has the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core.errors import CommandFailed

METAL = "ggml/src/ggml-metal"
_WHOLE = f"{METAL}/ggml-metal.metal"
_RULE = "// -- "
_LIBRARIES = ("fa", "fa_aux", "quantize")
_COMMON = """\
#if defined(GGML_METAL_EMBED_LIBRARY)
__embed_ggml-common.h__
#else
#include "ggml-common.h"
#endif
"""
# Differences in other files: file, text, and its replacement.
_SIGNATURES = (
    ("ggml-metal-device.h", "ggml_metal_device_init(int device)", "ggml_metal_device_init(int device, int n_devices)"),
    ("ggml-metal-ops.h", "int idx_start, int idx_end,\n    bool use_fusion, bool use_concurrency, bool use_capture,"
     " int debug_graph, int debug_fusion);",
     "struct ggml_metal_fusion_info * finfo, int idx_start, int idx_end,\n    bool use_concurrency, bool use_capture,"
     " int debug_graph);"),
    ("ggml-metal-ops.cpp", "ggml_cgraph * gf, int, int, bool,\n                                   bool use_concurrency,"
     " bool, int, int) {",
     "ggml_cgraph * gf, ggml_metal_fusion_info *, int,\n                                   int, bool use_concurrency,"
     " bool, int) {"),
)  # fmt: skip


def split(files: Mapping[str, bytes], beside: Path) -> dict[str, bytes]:
    """The files of the miniature, with the other layout; `beside` has the files written for it.

    Raises `CommandFailed` if the miniature has changed so that it cannot be split.
    """
    out = dict(files)
    whole = out.pop(_WHOLE).decode()
    _, decoders, attention, rows = _sections(whole)
    shared, _, kernels = attention.partition("\n// A simdgroup multiplies")
    reduce = _between(kernels, "\nkernel void kernel_flash_attn_ext_vec_reduce(", "\n}\n")
    if not kernels:
        raise CommandFailed(f"{_WHOLE} of the miniature: no attention kernel that begins with a simdgroup's part")
    own = {
        "dequantize.h": "#pragma once\n\n" + _include("common.h") + "\n" + _COMMON + "\n" + decoders,
        "fa_common.metal": shared.lstrip() + "\n",
        "fa.metal": _include("common.h", "dequantize.h", "fa_common.metal")
        + "\n// A simdgroup multiplies"
        + kernels.replace(reduce, ""),
        "fa_aux.metal": _include("common.h", "fa_common.metal") + reduce,
        "quantize.metal": _include("common.h", "dequantize.h") + "\n" + rows,
    }
    out |= {f"{METAL}/kernels/{name}": text.encode() for name, text in own.items()}
    written = [path for path in sorted((beside / METAL).rglob("*")) if path.is_file()]
    out |= {path.relative_to(beside).as_posix(): path.read_bytes() for path in written}
    device = f"{METAL}/ggml-metal-device.m"
    out[device] = _replaced(device, out[device].decode(), "#include <Metal/Metal.h>\n", _libraries())
    for name, old, new in _SIGNATURES:
        path = f"{METAL}/{name}"
        out[path] = _replaced(path, out[path].decode(), old, new)
    return out


def _libraries() -> str:
    rows = " \\\n".join(f"    X({name.upper()}, {name})" for name in _LIBRARIES)
    return (
        "#include <Metal/Metal.h>\n\n// The libraries of kernels: a file of kernels/ each, listed by CMake as well.\n"
        f"#define GGML_METAL_LIBS \\\n{rows}\n\nenum ggml_metal_lib_kind {{\n#define X(e, s) GGML_METAL_LIB_##e,\n"
        "    GGML_METAL_LIBS\n#undef X\n    GGML_METAL_LIB_COUNT,\n};\n"
    )


def _include(*names: str) -> str:
    return "".join(f'#include "{name}"\n' for name in names)


def _sections(text: str) -> list[str]:
    """The text before the first heading, and under each."""
    parts = text.split(f"\n{_RULE}")
    if len(parts) != 4:
        raise CommandFailed(f"{_WHOLE} of the miniature: {len(parts) - 1} headings, not three")
    return [parts[0], *(part.partition("\n")[2].lstrip() for part in parts[1:])]


def _between(text: str, first: str, last: str) -> str:
    begin = text.find(first)
    end = text.find(last, begin)
    if begin < 0 or end < 0:
        raise CommandFailed(f"{_WHOLE} of the miniature: nothing between {first.strip()!r} and {last.strip()!r}")
    return text[begin : end + len(last)]


def _replaced(path: str, text: str, old: str, new: str) -> bytes:
    if text.count(old) != 1:
        raise CommandFailed(f"{path} of the miniature: {text.count(old)} times {old!r}")
    return text.replace(old, new).encode()
