"""The kernels as a library without Ollama: configured, built, tested and installed by CMake alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from toolchain.build.tools import compilers
from toolchain.config import BuildConfig
from toolchain.series.manifest import OWN_SERIES

SOURCE = OWN_SERIES / "kernels"
TOOLS = Path(sys.executable).parent

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


def program(name: str, *arguments: str | Path) -> str:
    """What one of CMake's programs says; it must succeed."""
    done = subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def toolset(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The compilers that a build of Ollama would take, zig's among them, as options of CMake."""
    kind, cc, cxx = compilers(BuildConfig(), tmp_path_factory.mktemp("compilers"))
    names = {"CMAKE_C_COMPILER": cc.path, "CMAKE_CXX_COMPILER": cxx.path}
    if kind == "zig":
        names |= {f"CMAKE_{name.upper()}": str(Path(cc.path).parent / name) for name in ("ar", "ranlib")}
    return ["-G", "Ninja", *(f"-D{name}={value}" for name, value in names.items())]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, toolset: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("library")
    program("cmake", "-S", SOURCE, "-B", folder, *toolset, "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON")
    program("cmake", "--build", folder)
    return folder


def test_its_own_tests_pass(built: Path) -> None:
    said = program("ctest", "--test-dir", built, "--output-on-failure")
    assert "100% tests passed" in said
    assert all(name in said for name in ("round-trip", "variant-portable", "variant-default"))


def test_another_project_links_what_was_installed(built: Path, tmp_path: Path, toolset: list[str]) -> None:
    program("cmake", "--install", built, "--prefix", tmp_path / "prefix")
    (tmp_path / "user.c").write_text(USER)
    (tmp_path / "CMakeLists.txt").write_text(USERS_LIST)
    program("cmake", "-S", tmp_path, "-B", tmp_path / "build", *toolset, f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}")
    program("cmake", "--build", tmp_path / "build")
    done = subprocess.run([tmp_path / "build" / "user"], capture_output=True, text=True, check=True)
    assert 0.9 < float(done.stdout) < 1.1


def test_a_build_among_the_sources_is_refused(tmp_path: Path, toolset: list[str]) -> None:
    """It would add files to a sealed series."""
    (tmp_path / "CMakeLists.txt").write_bytes((SOURCE / "CMakeLists.txt").read_bytes())
    argv: list[str | Path] = [TOOLS / "cmake", "-S", tmp_path, "-B", tmp_path, *toolset]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "would break the seal" in done.stderr
