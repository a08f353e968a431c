"""The kernels as a library without Ollama: configured, library, tested and installed by CMake alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .conftest import LIBRARY as SOURCE
from .conftest import TOOLS, program

pytestmark = pytest.mark.slow

USER = """\
#include <ggml-turbo.h>
#include <stdio.h>

int main(void) {
    float        x[QK_TURBO] = { 1.0f };
    block_turbo4 block;
    ggml_turbo4_quantize_row(x, &block, QK_TURBO);
    ggml_turbo4_dequantize_row(&block, x, QK_TURBO);
    printf("%.2f\\n", x[0]);
    return 0;
}
"""
USERS_LIST = """\
cmake_minimum_required(VERSION 3.21)
project(user LANGUAGES C CXX)
find_package(turbo REQUIRED)
add_executable(user user.c)
target_link_libraries(user PRIVATE turbo::turbo)
"""


def test_its_own_tests_pass(library: Path) -> None:
    said = program("ctest", "--test-dir", library, "--output-on-failure")
    assert "100% tests passed" in said
    assert all(name in said for name in ("round-trip", "variant-portable", "variant-default", "variant-native"))


def test_another_project_links_what_was_installed(library: Path, tmp_path: Path, cmake_compilers: list[str]) -> None:
    program("cmake", "--install", library, "--prefix", tmp_path / "prefix")
    (tmp_path / "user.c").write_text(USER)
    (tmp_path / "CMakeLists.txt").write_text(USERS_LIST)
    program(
        "cmake",
        "-S",
        tmp_path,
        "-B",
        tmp_path / "build",
        *cmake_compilers,
        f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}",
    )
    program("cmake", "--build", tmp_path / "build")
    done = subprocess.run([tmp_path / "build" / "user"], capture_output=True, text=True, check=True)
    assert 0.9 < float(done.stdout) < 1.1


def test_a_build_among_the_sources_is_refused(tmp_path: Path, cmake_compilers: list[str]) -> None:
    """It would add files to a sealed series."""
    (tmp_path / "CMakeLists.txt").write_bytes((SOURCE / "CMakeLists.txt").read_bytes())
    argv: list[str | Path] = [TOOLS / "cmake", "-S", tmp_path, "-B", tmp_path, *cmake_compilers]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "would break the seal" in done.stderr
