"""Our kernels by clang's own vectors and address spaces, which are what Apple's compiler is made of: no error, and no
warning either, since the backend takes a library that was compiled with one for none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolchain.core.process import run
from toolchain.metal.drivers import drivers
from toolchain.series.manifest import OWN_SERIES

HEADER = Path(__file__).with_name("strict.h")
PARTS = (
    "ggml-metal-turbo-args.h", "ggml-turbo-types.h", "ggml-metal-turbo-decode.metal", "ggml-metal-turbo-encode.metal",
    "ggml-metal-turbo-attention.metal",
)  # fmt: skip
# what is no C++, and what stands for it; the rest is done by macros
REWRITTEN = (
    (r"#pragma once", ""),
    (r"\[\[function_constant\(\w+\)\]\]", "= 0"),
    (r"\[\[host_name\(.*?\)\)\]\]", ""),
    (r"(?m)^( +)(threadgroup \w+ +\w+\[)", r"\1static \2"),
    (r"\b((?:char|uchar|short|ushort|int|uint|half|float)[24])\(", r"make_\1("),
    (r"make_uint2\(beyond\)", "as_type<uint2>(beyond & 1)"),
)
FLAGS = (
    "-x", "c++", "-fsyntax-only", "-nostdinc", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter",
    "-Wno-unknown-attributes", "-Wno-unused-function", "-Wno-gnu",
)  # fmt: skip

SOUND = """
constexpr constant static half book[4] = { 1, 2, 3, 4 };
static inline float take(threadgroup const float * from) { return from[0]; }
kernel void slip(device const float * in, device float * out, ushort lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[32];
    const float4 x = float4(in[0], in[1], in[2], in[3]);
    const half4 h = half4(x);
    const half d = h.x;
    shared[lane] = book[lane % 4] + d;
    /* here */
    out[lane] = take(shared) + x.y;
}
"""


def complaints(text: str, folder: Path, standard: str) -> str:
    """What clang says of a Metal source; empty if nothing."""
    for pattern, by in REWRITTEN:
        text = re.sub(pattern, by, text)
    path = folder / "kernels.cpp"
    path.write_text(f'#include "{HEADER}"\nusing namespace metal;\n{text}', encoding="utf-8")
    done = run([*drivers().front, *FLAGS, f"-std={standard}", path], check=False, timeout=300.0)
    assert bool(done.returncode) == ("error:" in done.output), done.output
    return done.output if done.returncode else ""


@pytest.mark.parametrize("standard", ["c++14", "c++17"])  # of MSL up to 3.2, and from 4.0 on
def test_our_kernels(tmp_path: Path, standard: str) -> None:
    kernels = OWN_SERIES / "kernels"
    text = "".join(f'#line 1 "{name}"\n{(kernels / name).read_text(encoding="utf-8")}' for name in PARTS)
    assert complaints(text, tmp_path, standard) == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("half4 c = x.x > 0 ? h : x;", "cannot convert between vector"),
        ("float4 c = x + h;", "cannot convert between vector"),
        ("float4 c = h;", "cannot initialize"),
        ("uint2 c = make_uint2(1) * 0.5f;", "cannot convert between"),
        ("int c = min(lane, 3);", "ambiguous"),
        ("float * c = in;", "cannot initialize"),
        ("float c = take(in);", "no matching function"),
        ("half4 c = book[0] * d; thread half4 & e = c; e = x;", "assigning to"),
        ("uint c = simd_ballot(true);", "no viable conversion"),
        ("simdgroup_half8x8 c; simdgroup_load(c, in);", "no matching function"),
        ("int unused = 1;", "unused variable"),
        ("float c = as_type<float>(d);", "as_type is between types of one size"),
    ],
)
def test_a_slip_is_noticed(tmp_path: Path, line: str, said: str) -> None:
    assert complaints(SOUND, tmp_path, "c++14") == ""
    assert said in complaints(SOUND.replace("/* here */", line), tmp_path, "c++14")
