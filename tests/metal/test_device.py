"""The same cases on a Mac's GPU: the command, and how its output is read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toolchain.core.console import Console
from toolchain.core.errors import CommandFailed, MissingTool
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
