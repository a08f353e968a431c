"""Every instruction set gives the bits of the portable C, and none of it undefined behaviour."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import STANDALONE, compile_kernels, compiler

pytestmark = pytest.mark.slow

# The names that CMake has for a variant, and the flags that /proc/cpuinfo must name to run it.
X86 = {
    "sse4.1": ("sse41", {"sse4_1"}),
    "ivybridge": ("ivybridge", {"avx", "f16c"}),
    "avx2": ("avx2", {"avx2", "fma", "f16c"}),
    "avx512": ("avx512", {"avx512f", "avx512bw", "avx512vl", "avx512vbmi", "avx512_vnni"}),
}


def results(directory: Path, command: list[str], *flags: str, runner: tuple[str, ...] = ()) -> bytes:
    """What the driver writes when compiled by `command` with `flags`, run by `runner`."""
    program = directory / "drive"
    compile_kernels(command, program, str(STANDALONE / "drive.c"), *flags)
    done = subprocess.run([*runner, str(program)], capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The results of plain C: on arm64 its vectors are part of the base set, so they are masked."""
    plain = ["-U__ARM_NEON"] if platform.machine() in ("arm64", "aarch64") else []
    return results(tmp_path_factory.mktemp("portable"), compiler(), "-O1", *plain)


def test_the_results_are_not_trivial(portable: bytes) -> None:
    assert len(portable) > 1_000_000
    assert len(set(portable)) == 256
    assert 0.1 < portable.count(0) / len(portable) < 0.4


def test_native(portable: bytes, tmp_path: Path) -> None:
    """With -O2; with -O3, as in a release, the library's own tests do it."""
    assert results(tmp_path, compiler(), "-O2", "-march=native") == portable


@pytest.mark.parametrize("variant", X86)
def test_x86(library: Path, portable: bytes, variant: str) -> None:
    """What CMake builds for the variant, against this file's build of plain C."""
    name, needed = X86[variant]
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file() or not needed <= set(cpuinfo.read_text().split()):
        pytest.skip(f"this CPU cannot run {variant}: it needs {', '.join(sorted(needed))}")
    assert subprocess.run([library / f"drive-{name}"], capture_output=True, check=True).stdout == portable


@pytest.mark.parametrize("features", ["armv8-a", "armv8.2-a+dotprod"])
def test_neon_under_qemu(portable: bytes, tmp_path: Path, features: str) -> None:
    command = arm64_compiler()
    runner = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if command is None or runner is None:
        pytest.skip(
            "NEON is not tested here: it needs qemu-aarch64 (package qemu-user) and aarch64-linux-gnu-gcc (package "
            "gcc-aarch64-linux-gnu) or zig (pip install ziglang)"
        )
    flag = (
        f"-march={features}"
        if "ziglang" not in command
        else f"-mcpu=generic+{'dotprod' if '+' in features else 'neon'}"
    )
    assert results(tmp_path, command, "-O2", "-static", flag, runner=(runner, "-cpu", "max")) == portable


def arm64_compiler() -> list[str] | None:
    """A C compiler for static arm64 Linux programs."""
    if shutil.which("aarch64-linux-gnu-gcc"):
        return ["aarch64-linux-gnu-gcc"]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl"]
    return None


@pytest.mark.parametrize("flags", [(), ("-march=native",)], ids=["portable", "native"])
def test_no_undefined_behaviour(portable: bytes, tmp_path: Path, flags: tuple[str, ...]) -> None:
    sanitizers = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
    if shutil.which("cc"):  # zig brings no runtime for the address sanitizer
        sanitizers.append("-fsanitize=address")
    assert results(tmp_path, compiler(), "-g", "-O1", *sanitizers, *flags) == portable
