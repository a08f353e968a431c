"""metal.check: the whole source compiles, and host code and kernels fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.core.errors import KernelInvalid, UnknownLayout
from toolchain.metal import inspection
from toolchain.metal.names import NUMBER, TYPE, patterns, types
from toolchain.text import as_text

HOST = r"""
static pipeline get_copy(library lib, int tsrc, int tdst) {
    // snprintf(base, 256, "kernel_commented_out");
    snprintf(base, 256, "kernel_copy_%s_%s", ggml_type_name(tsrc), ggml_type_name(tdst));
    snprintf(name, 256, "%s_n=%d", base, 1);
    return ggml_metal_library_compile_pipeline(lib, base, name, nullptr);
}
static pipeline get_unary(library lib, int op, bool is_c4) {
    const char * op_str = "undefined";
    switch (op) {
        case 0: op_str = "neg"; break;
        case 1: op_str = "abs"; break;
    }
    const char * type_str = ggml_type_name(0);
    snprintf(base, sizeof(base), "kernel_%s_%s%s", op_str, type_str, is_c4 ? "_4" : "");
    return ggml_metal_library_compile_pipeline(lib, base, base, nullptr);
}
static pipeline get_tile(library lib, int n) {
    const char * name = nullptr;
    switch (n) {
        case 0: name = "kernel_tile_zero"; break;
        default: name = "kernel_tile_any"; break;
    }
    snprintf(key, 256, "kernel_tile_%d_of_the_cache", n);
    return ggml_metal_library_compile_pipeline(lib, name, key, nullptr);
}
static pipeline get_sized(library lib, int n) {
    char variant[16] = {0};
    if (n > 64) {
        snprintf(variant, sizeof(variant), "_q%d", n / 64);
    }
    snprintf(base, 256, "kernel_sized_%d%s", n, variant);
    return ggml_metal_library_compile_pipeline(lib, base, base, nullptr);
}
"""
SOURCE = """
#include <metal_stdlib>
using namespace metal;
template <typename S, typename D>
kernel void copy(device const S * s, device D * d, uint i [[thread_position_in_grid]]) { d[i] = (D) s[i]; }

template [[host_name("kernel_copy_f32_f16")]] kernel decltype(copy<float, half>) copy<float, half>;
#if defined(GGML_METAL_HAS_BF16)
template [[host_name("kernel_copy_f32_bf16")]] kernel decltype(copy<float, bfloat>) copy<float, bfloat>;
#endif
#define UNARY(name) kernel void name(device float * x) { x[0] = 1; }
UNARY(kernel_neg_f32) UNARY(kernel_neg_f32_4) UNARY(kernel_abs_f32) UNARY(kernel_abs_f32_4)
UNARY(kernel_tile_zero) UNARY(kernel_tile_any)
template <int N> kernel void sized(device float * x) { x[0] = N; }
template [[host_name("kernel_sized_64")]] kernel decltype(sized<64>) sized<64>;
template [[host_name("kernel_sized_128_q2")]] kernel decltype(sized<128>) sized<128>;
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "ggml/src/ggml-metal"
    folder.mkdir(parents=True)
    names = "".join(
        f'    [GGML_TYPE_{name.upper()}] = {{ .type_name = "{name}" }},\n' for name in ("f32", "f16", "bf16")
    )
    (tmp_path / "ggml/src/ggml.c").write_text(f"table = {{\n{names}}};\n")
    (folder / "ggml-metal-device.cpp").write_text(HOST)
    (folder / "ggml-metal.metal").write_text(SOURCE)
    return tmp_path


def change(tree: Path, name: str, old: str, new: str) -> None:
    path = tree / "ggml/src/ggml-metal" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_names_that_the_host_builds(tree: Path) -> None:
    assert types(tree) == ("f32", "f16", "bf16")
    found = [pattern.pieces for pattern in patterns(tree)]
    assert (("kernel_copy_",), (TYPE,), ("_",), (TYPE,)) in found
    assert (("kernel_",), ("neg", "abs"), ("_",), (TYPE,), ("_4", "")) in found
    assert (("kernel_sized_",), (NUMBER,), ("", f"_q{NUMBER}")) in found
    assert len(found) == 5, "neither what is commented out nor the name of a cache's entry"


def test_a_tree_that_fits(tree: Path) -> None:
    found = inspection.inspect(tree)
    assert found.ok
    assert found.kernels == {"with bfloat": 10, "without bfloat": 9}
    assert found.failure() is None
    assert "no kernel is idle" in as_text(found)


@pytest.mark.parametrize(
    ("old", "new", "absent", "unasked"),
    [
        ("UNARY(kernel_abs_f32) ", "", ["kernel_abs_<type>"], []),
        ('"kernel_sized_64"', '"kernel_sized_64b"', ["kernel_sized_<n>"], ["kernel_sized_64b"]),
        ('"kernel_sized_128_q2"', '"kernel_sized_128_r2"', ["kernel_sized_<n>_q<n>"], ["kernel_sized_128_r2"]),
        ('"kernel_copy_f32_f16"', '"kernel_copy_f32_f17"', [], ["kernel_copy_f32_f17"]),
        ("UNARY(kernel_tile_any)", "UNARY(kernel_tile_all)", ["kernel_tile_any"], ["kernel_tile_all"]),
    ],
)
def test_what_does_not_fit_is_named(tree: Path, old: str, new: str, absent: list[str], unasked: list[str]) -> None:
    change(tree, "ggml-metal.metal", old, new)
    found = inspection.inspect(tree)
    assert list(found.absent) == absent
    assert list(found.unasked) == unasked
    assert all(where.startswith("ggml/src/ggml-metal/ggml-metal-device.cpp:") for where in found.absent.values())
    said = as_text(found)
    assert all(name in said for name in (*absent, *unasked))
    assert isinstance(found.failure(), KernelInvalid)


def test_a_kernel_that_only_one_variant_breaks(tree: Path) -> None:
    change(tree, "ggml-metal.metal", "#endif", "#else\nkernel void broken(device float * x) { x = none; }\n#endif")
    with pytest.raises(KernelInvalid, match=r"ggml-metal\.metal:11: .*'none'"):
        inspection.inspect(tree)


def test_a_tree_of_something_else(tmp_path: Path, tree: Path) -> None:
    with pytest.raises(UnknownLayout, match="no table of types"):
        inspection.inspect(tmp_path / "none")
    change(tree, "ggml-metal-device.cpp", "compile_pipeline", "other")
    with pytest.raises(UnknownLayout, match="no host code that names kernels"):
        inspection.inspect(tree)
