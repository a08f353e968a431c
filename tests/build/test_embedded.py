"""The text of the Metal kernels in a build, in real libraries of this machine's compiler."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain.build import embedded
from toolchain.core.errors import BuildFailed

TEXT = """
#line 1
kernel void kernel_turbo_few(
    int n) {}
template <short N>
kernel void kernel_turbo_many(int n) {}
"""
INCBIN = '__asm__(".globl metallib_start\\nmetallib_start:\\n.incbin \\"{}\\"\\n");\nint unused;\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = tmp_path / "tree" / embedded.SOURCE
    source.parent.mkdir(parents=True)
    source.write_text(f'static const char * const ggml_metal_turbo_source = R"TURBO({TEXT})TURBO";\n')
    return tmp_path / "tree"


@pytest.fixture
def library(tmp_path: Path, tree: Path) -> Callable[[str], Path]:
    """A stage with one shared library, of C++ code."""

    def make(code: str) -> Path:
        folder = tmp_path / "stage" / "lib" / "ollama"
        folder.mkdir(parents=True)
        (folder / "empty.txt").touch()
        (tmp_path / "host.cpp").write_text(code)
        words: list[str | Path] = [
            "c++",
            "-O2",
            "-shared",
            "-fPIC",
            "-I",
            tree / "ggml/src/ggml-metal",
            tmp_path / "host.cpp",
        ]
        subprocess.run([*words, "-o", folder / "libggml-metal.so"], check=True)
        return tmp_path / "stage"

    return make


def test_a_library_whose_code_includes_the_text(tree: Path, library: Callable[[str], Path]) -> None:
    embedded.require(library('#include "ggml-metal-turbo-source.h"\nextern "C" const char * text() '
                             "{ return ggml_metal_turbo_source; }"), tree)  # fmt: skip


def test_a_text_that_the_assembler_includes(tmp_path: Path, tree: Path, library: Callable[[str], Path]) -> None:
    (tmp_path / "embed.metal").write_text(TEXT)
    embedded.require(library(INCBIN.format(tmp_path / "embed.metal")), tree)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kernel void kernel_upstream() {}\n", r"nothing below .* Metal text of kernel_turbo_few, kernel_turbo_many\n"),
        (TEXT.replace("kernel_turbo_many", "other"), r"libggml-metal\.so holds no Metal text of kernel_turbo_many\n"),
        (TEXT.replace("int n) {}", "long n) {}"), r"libggml-metal\.so: the text of the Metal kernels is not that of"),
    ],
)
def test_a_build_without_the_kernels(
    tmp_path: Path, tree: Path, library: Callable[[str], Path], text: str, words: str
) -> None:
    (tmp_path / "embed.metal").write_text(text)
    with pytest.raises(BuildFailed, match=words):
        embedded.require(library(INCBIN.format(tmp_path / "embed.metal")), tree)


def test_a_stock_tree_and_a_damaged_one(tmp_path: Path, tree: Path) -> None:
    embedded.require(tmp_path, tmp_path / "stock")
    (tree / embedded.SOURCE).write_text("// nothing\n")
    with pytest.raises(BuildFailed, match="no text of Metal kernels"):
        embedded.require(tmp_path, tree)
