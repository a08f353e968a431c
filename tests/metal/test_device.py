"""The same cases on a Mac's GPU: the command, and how its output is read."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from toolchain.core import config
from toolchain.core.console import Console
from toolchain.core.errors import BuildFailed, CommandFailed, MissingTool
from toolchain.metal import device

TYPES = ("turbo4", "turbo3", "turbo2")
OUTPUT = """Testing 2 devices
Backend 1/2: MTL0
  SET_ROWS(type=turbo4,type_idx=i64,ne=[256,5,1,3],nr23=[1,1],r=1,v=0): \x1b[1;32mOK\x1b[0m
  CPY(type_src=turbo3,type_dst=turbo3,ne=[256,4,4,4]): not supported [MTL0]
  FLASH_ATTN_EXT(hsk=192,hsv=128,nh=2,nr23=[2,1],kv=77,type_K=q8_0,type_V=turbo4): [MTL0] ERR 0.1 \x1b[1;31mFAIL\x1b[0m
  1/2 tests passed
"""


def program(folder: Path, output: str, code: int) -> Path:
    """A program that prints `output` and ends with `code`."""
    path = folder / "test-backend-ops"
    path.write_text(f"#!{sys.executable}\nimport sys\nprint({output!r})\nsys.exit({code})\n")
    path.chmod(0o755)
    return path


def test_the_command() -> None:
    assert device.arguments(Path("bin/test-backend-ops"), TYPES) == [
        "bin/test-backend-ops", "test", "-o", "GET_ROWS,SET_ROWS,CPY,FLASH_ATTN_EXT", "-b", "MTL0",
        "-p", "turbo4|turbo3|turbo2",
    ]  # fmt: skip


def test_what_the_gpu_says(tmp_path: Path) -> None:
    ran = device.run_device(program(tmp_path, OUTPUT, 1), TYPES, Console(json=True))
    assert (ran.passed, ran.failed) == (1, 1)
    rows, attention = ran.cases
    assert (rows.kernel, rows.type, rows.ok) == ("SET_ROWS", "turbo4/i64", True)
    assert (attention.type, attention.head_size, attention.ok) == ("q8_0/turbo4", "192/128", False)
    assert "FAIL" in attention.wrong[0]


def test_no_program_and_no_gpu(tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match="test-backend-ops"):
        device.run_device(tmp_path / "test-backend-ops", TYPES, Console(json=True))
    with pytest.raises(CommandFailed, match="no case of turbo4"):
        device.run_device(program(tmp_path, "Testing 1 devices\n  Skipping", 0), TYPES, Console(json=True))


@pytest.mark.slow
def test_the_program_is_built_of_the_trees_ggml_alone(tmp_path: Path) -> None:
    """A tree of a library and a program: nothing else of llama.cpp's build is read."""
    tree, settings, workspace = tmp_path / "tree", config.load(environ={}), tmp_path / "workspace"
    for name, text in (
        ("ggml/CMakeLists.txt", "add_library(ggml ggml.c)\ntarget_include_directories(ggml PUBLIC .)\n"),
        ("ggml/ggml.c", '#include "ggml.h"\nconst char * ggml_type_name(void) { return "turbo4"; }\n'),
        ("ggml/ggml.h", '#ifdef __cplusplus\nextern "C"\n#endif\nconst char * ggml_type_name(void);\n'),
        (
            "tests/test-backend-ops.cpp",
            '#include "ggml.h"\n#include <cstdio>\n'
            'int main() { printf("SET_ROWS(type=%s): OK\\n", ggml_type_name()); }\n',
        ),
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    program = device.build(tree, settings, workspace, Console(json=True))
    made = program.stat().st_mtime_ns
    assert device.build(tree, settings, workspace, Console(json=True)) == program
    assert program.stat().st_mtime_ns == made, "it was up to date"
    assert device.run_device(program, ("turbo4",), Console(json=True)).passed == 1
    (tree / "tests" / "test-backend-ops.cpp").write_text("#error the scripted fault\n")
    with pytest.raises(BuildFailed, match="the scripted fault"):
        device.build(tree, settings, workspace, Console(json=True))
    assert sorted(path.name for path in tree.iterdir()) == ["ggml", "tests"], "nothing was built in the tree"


def test_how_it_is_configured_on_a_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.BuildConfig()
    here = device.configuration(tmp_path, tmp_path / "build", settings, tmp_path)
    assert "-DGGML_METAL=OFF" in here or sys.platform == "darwin"
    monkeypatch.setattr(device, "sys", SimpleNamespace(platform="darwin"))
    words = device.configuration(tmp_path, tmp_path / "build", settings, tmp_path)
    assert {"-DGGML_METAL=ON", "-DGGML_METAL_EMBED_LIBRARY=ON", "-DCMAKE_OSX_ARCHITECTURES=arm64"} <= set(words)
    assert f"-DLLAMA_CPP={tmp_path}" in words
