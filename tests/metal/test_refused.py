"""What cannot be compiled or dispatched is refused: by name, at the user's file and line."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolchain.core.errors import KernelInvalid, MissingTool, NotModelled
from toolchain.metal import Library, check, compile, compiler
from toolchain.metal.drivers import drivers

Write = Callable[[str], Path]
GOOD = "kernel void good(device float * x) { x[0] = 1; }"


@pytest.mark.parametrize(
    ("body", "line", "said"),
    [
        ("kernel void f(device float * x) {\n    x[0] = missing;\n}", 4, "undeclared identifier 'missing'"),
        ("kernel void f(device float * x) {\n    float4 v = float4(1, 2, 3);\n}", 4, "as many components"),
        ("kernel void f(device float * x) {\n    x[0] = float2(1).z;\n}", 4, "no member named 'z'"),
        ("kernel void f(device float * x) {\n    x[0] = float2(1).xyz.x;\n}", 4, "does not have"),
        ("kernel void f(device float * x) {\n    half4 h = float4(1);\n}", 4, "no viable conversion"),
        ("kernel void f(device float * x) {\n    x[0] = simd_sum(x);\n}", 4, ""),
        ("kernel void f(device float * x, uint i) {}", 3, "the parameter i of a kernel is bound to nothing"),
        ("kernel void f(float * x) {}", 3, "the parameter x has no address space"),
        ("float g(float * x) { return x[0]; }", 3, "the parameter x has no address space"),
        ('template [[host_name("a")]] kernel void f<int>(device int * x);', 3, "there is no kernel f"),
        (
            "template <typename T> kernel void f(device T * x) {\n    x[0] = T::none;\n}\n"
            'template [[host_name("a")]] kernel void f<int>(device int * x);',
            4,
            "'::'",
        ),
        ('[[host_name("good")]] kernel void f(device int * x) {}\n' + GOOD, 4, "the kernel good was already defined"),
    ],
)
def test_a_source_that_does_not_compile(write: Write, body: str, line: int, said: str) -> None:
    path = write(body)
    with pytest.raises(KernelInvalid) as caught:
        check(path)
    assert f"{path}:{line}: " in caught.value.message
    assert said in caught.value.message
    assert "msl_" not in caught.value.message.split(": ", 1)[0], "not into the harness's own headers"


def test_a_message_counts_lines_of_an_included_file(write: Write, tmp_path: Path) -> None:
    (tmp_path / "own.h").write_text("// one\nstatic inline int broken() { return nothing; }\n")
    with pytest.raises(KernelInvalid, match=r"own\.h:2: .*'nothing'"):
        check(write('#include "own.h"\n' + GOOD))


@pytest.mark.parametrize(
    ("body", "line", "name"),
    [
        ("kernel void f(texture2d<float> t [[texture(0)]]) {}", 3, "texture2d"),
        ("kernel void f(device float * x) {\n    x[0] = quad_sum(x[0]);\n}", 4, "quad_sum"),
        ("kernel void f(device float * x) {\n    simdgroup_event e;\n}", 4, "simdgroup_event"),
        ("fragment float4 f() { return float4(0); }", 3, "fragment"),
        ("kernel void f(device float * x [[buffer(0), function_constant(c)]]) {}", 3, "function_constant ( c )"),
        ("kernel void f(device float * x, uint i [[thread_position_in_cloud]]) {}", 3, "thread_position_in_cloud"),
        ("#include <metal_tensor>", 3, "metal_tensor"),
        ("#include <MetalPerformancePrimitives/MetalPerformancePrimitives.h>", 3, "MetalPerformancePrimitives"),
    ],
)
def test_msl_that_is_not_modelled(write: Write, body: str, line: int, name: str) -> None:
    path = write(body)
    with pytest.raises(NotModelled) as caught:
        check(path)
    assert name in caught.value.message
    assert f"{path}:{line}" in caught.value.message


def test_a_word_in_a_comment_or_a_string_is_no_msl(write: Write) -> None:
    found = check(write('// texture2d<float> t\nconstant char name[] = "kernel void no()";\n' + GOOD))
    assert list(found.kernels) == ["good"]


def test_unknown_kernels(write: Write, broken: Library) -> None:
    with pytest.raises(KernelInvalid, match="no kernel matches bad"):
        compile(write(GOOD), kernels=["bad"])
    with pytest.raises(KernelInvalid, match="there is no kernel bad"):
        broken.run("bad", [], grid=(1,), threads=(1,))
    with pytest.raises(KernelInvalid, match="no such file"):
        check(Path("none.metal"))


@pytest.mark.slow
def test_what_was_compiled_is_kept(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    first = compile(write(GOOD), cache=store)
    made = first.program.stat().st_ino
    assert compile(write(GOOD), cache=store).program.stat().st_ino == made
    monkeypatch.setattr(compiler, "KEPT", 1)
    compile(write(GOOD.replace("= 1", "= 3")), cache=store)
    assert first.program.is_file(), "a run may still be using it"
    for program in store.glob("*.program"):
        os.utime(program, (0, 0))
    second = compile(write(GOOD.replace("= 1", "= 2")), cache=store)
    assert second.run("good", [np.zeros(1, "f4")], grid=(1,), threads=(1,)).buffers[0][0] == 2
    assert [path.name for path in store.glob("*.program")] == [second.program.name], "the older one had to go"
    assert len(list(store.glob("*.json"))) == 1


@pytest.mark.slow
def test_what_was_compiled_serves_another_tree_of_the_same_content(tmp_path: Path) -> None:
    """And what is found is said of that tree's files, also of those that it includes."""
    bad = '#include <metal_stdlib>\n#include "shared.h"\nkernel void bad(device float * x) {\n    x[AT] = 1;\n}\n'
    found = []
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        (folder / "shared.h").write_text("#define AT 99\nkernel void also(device float * x) { x[AT] = 1; }\n")
        (folder / "user.metal").write_text(bad)
        library = compile(folder / "user.metal", cache=tmp_path / "store")
        places = [
            library.run(name, [np.zeros(1, "f4")], grid=(1,), threads=(1,)).findings[0].where
            for name in ("bad", "also")
        ]
        assert places == [f"{folder / 'user.metal'}:4", f"{folder / 'shared.h'}:2"]
        found.append(library.program)
    assert found[0] == found[1]
    (tmp_path / "other" / "shared.h").write_text("#define AT 98\nkernel void also(device float * x) { x[AT] = 1; }\n")
    assert compile(tmp_path / "other" / "user.metal", cache=tmp_path / "store").program != found[0]


def test_a_kernel_that_was_left_out(cache: Path) -> None:
    library = compile(Path(__file__).with_name("broken.metal"), kernels=["by_*"], cache=cache)
    assert library.kernels == ("by_zero",)
    with pytest.raises(KernelInvalid, match="the kernel far_away was not compiled"):
        library.run("far_away", [], grid=(1,), threads=(1,))


ARGS = np.zeros((), [("n", "i4"), ("scale", "f4")])
FLOATS = np.zeros((8, 4), "f4")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"buffers": [np.zeros(3, "i4"), FLOATS, FLOATS]}, "buffer 0 (args) has 12 bytes; the kernel's argument has 8"),
        ({"buffers": [ARGS, FLOATS.ravel()[:3], FLOATS]}, "buffer 1 (src) has 12 bytes; one element has 16"),
        ({"buffers": [ARGS, FLOATS]}, "buffer 2 (dst) is not bound"),
        ({"buffers": [ARGS, FLOATS, FLOATS, FLOATS]}, "it has no buffer 3"),
        ({"buffers": [ARGS, FLOATS, "text"]}, "cannot bind a str"),
        ({"threads": (32, 64)}, "2048 threads in a threadgroup; Metal allows 1024"),
        ({"grid": (0,)}, "grid (0,)"),
        ({"grid": (1, 1, 1, 1)}, "one to three numbers"),
        ({"threadgroup_bytes": [64]}, "it has no threadgroup argument 0"),
        ({"function_constants": {"FC_none": 1}}, "there is no function constant FC_none"),
        ({"function_constants": {7: 1}}, "there is no function constant 7"),
    ],
)
def test_a_dispatch_that_does_not_fit(sound: Library, changed: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"buffers": [ARGS, FLOATS, FLOATS], "grid": (1,), "threads": (8,)} | changed
    with pytest.raises(KernelInvalid) as caught:
        sound.run("scale", **given)
    assert said in caught.value.message


def test_threadgroup_memory_has_a_limit(sound: Library) -> None:
    given: dict[str, Any] = {"grid": (1,), "threads": (32,)}
    buffers = [np.zeros(32, "f4"), np.zeros(1, "f4"), np.zeros(1, "i4")]
    with pytest.raises(KernelInvalid, match="32784 bytes of threadgroup memory, 128 of them in variables"):
        sound.run("row_sum", buffers, threadgroup_bytes=[32656], **given)
    with pytest.raises(KernelInvalid, match=r"argument 0 \(partial\) has no length"):
        sound.run("row_sum", buffers, **given)
    with pytest.raises(KernelInvalid, match="a multiple of 16"):
        sound.run("row_sum", buffers, threadgroup_bytes=[20], **given)
    assert sound.run("row_sum", buffers, threadgroup_bytes=[32640], **given).ok


def test_without_a_clang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with neither a clang nor zig; then one with an old clang, and zig beside it."""
    old = tmp_path / "clang++"
    old.write_text("#!/bin/sh\necho Debian clang version 14.0.6\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ziglang" else known(name))
    with pytest.raises(MissingTool, match="clang 17 or newer"):
        drivers.__wrapped__()
    monkeypatch.setattr(importlib.util, "find_spec", known)
    if known("ziglang"):
        zig, command = drivers.__wrapped__().link[:2]
        assert (Path(zig).name, command) == ("zig", "cc"), "nothing else links here"
    old.write_text("#!/bin/sh\necho Apple clang version 16.0.0\n")
    assert drivers.__wrapped__().front == (str(old),)
