"""The kernels as a shared library, compiled from patches/kernels with the system's compiler or zig."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.shared import once
from toolchain.build.tools import compilers
from toolchain.core.config import BuildConfig
from toolchain.series.manifest import OWN_SERIES
from toolchain.stages import CacheType

HERE = Path(__file__).parent
LIBRARY = OWN_SERIES / "kernels"
STANDALONE = LIBRARY / "standalone"
TOOLS = Path(sys.executable).parent
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def compiler() -> list[str]:
    """A C compiler's command."""
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    return [sys.executable, "-m", "ziglang", "cc"]


def compile_kernels(command: list[str], output: Path, *more: str) -> None:
    """Compile the encoder and both C files of the CPU, and what `more` adds, with a compiler's `command`."""
    kernels = OWN_SERIES / "kernels"
    includes = [f"-I{kernels}", f"-I{STANDALONE}"]
    common = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-DGGML_TURBO_STANDALONE", *includes]
    flags = [word for word in more if word.startswith("-") and word not in ("-shared", "-static")]
    encoder = output.with_name("encode.o")
    source = str(kernels / "ggml-cpu-turbo-encode.cpp")
    subprocess.run([*command, "-std=c++17", *common, *flags, "-c", source, "-o", str(encoder)], check=True)
    sources = [str(kernels / "ggml-turbo.c"), str(kernels / "ggml-cpu-turbo.c"), str(encoder)]
    subprocess.run([*command, "-std=c11", *common, *sources, *more, "-lm", "-o", str(output)], check=True)


class Kernels:
    """The compiled kernels on NumPy arrays."""

    def __init__(self, path: Path) -> None:
        self._lib = ctypes.CDLL(str(path))
        self._lib.ggml_turbo_half_to_float.restype = ctypes.c_float
        self._lib.ggml_turbo_half_to_float.argtypes = [ctypes.c_uint16]
        self._lib.ggml_turbo_float_to_half.restype = ctypes.c_uint16
        self._lib.ggml_turbo_float_to_half.argtypes = [ctypes.c_float]

    def levels(self, kind: CacheType) -> npt.NDArray[np.int8]:
        """Both codebooks (2, levels)."""
        count = 4 << (kind.bytes - 10) // 8
        table = (ctypes.c_int8 * count * 2).in_dll(self._lib, f"ggml_{kind.name}_levels")
        return np.array(table, dtype=np.int8)

    def quantize(self, kind: CacheType, values: Floats) -> Bytes:
        """Blocks (n, bytes) of values (n, 64)."""
        values = np.ascontiguousarray(values, dtype=np.float32)
        blocks = np.full((values.size // kind.block, kind.bytes), 0xA5, dtype=np.uint8)
        function = getattr(self._lib, f"ggml_{kind.name}_quantize_row")
        function(values.ctypes.data_as(ctypes.c_void_p), blocks.ctypes.data_as(ctypes.c_void_p), _i64(values.size))
        return blocks

    def dequantize(self, kind: CacheType, blocks: Bytes) -> Floats:
        """Values (n, 64) of blocks (n, bytes)."""
        values = np.full((len(blocks), kind.block), np.nan, dtype=np.float32)
        function = getattr(self._lib, f"ggml_{kind.name}_dequantize_row")
        function(blocks.ctypes.data_as(ctypes.c_void_p), values.ctypes.data_as(ctypes.c_void_p), _i64(values.size))
        return values

    def levels_row(self, kind: CacheType, blocks: Bytes) -> tuple[npt.NDArray[np.int8], Floats]:
        """Levels (n, 64) and what they are multiplied by (n, 1), of blocks (n, bytes)."""
        levels = np.zeros((len(blocks), kind.block), dtype=np.int8)
        scales = np.full((len(blocks), 1), np.nan, dtype=np.float32)
        function = getattr(self._lib, f"ggml_{kind.name}_levels_row")
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (blocks, levels, scales)]
        function(*pointers, _i64(levels.size))
        return levels, scales

    def vec_dot(self, kind: CacheType, blocks: Bytes, q8_0: Bytes) -> float:
        """Dot product of a row of turbo blocks with a row of q8_0 blocks (n, 34)."""
        result = ctypes.c_float(float("nan"))
        zero = ctypes.c_size_t(0)
        getattr(self._lib, f"ggml_vec_dot_{kind.name}_q8_0")(
            ctypes.c_int(len(blocks) * kind.block),
            ctypes.byref(result),
            zero,
            blocks.ctypes.data_as(ctypes.c_void_p),
            zero,
            q8_0.ctypes.data_as(ctypes.c_void_p),
            zero,
            ctypes.c_int(1),
        )
        return result.value

    def half_to_float(self, half: int) -> float:
        return float(self._lib.ggml_turbo_half_to_float(half))

    def float_to_half(self, value: float) -> int:
        return int(self._lib.ggml_turbo_float_to_half(value))


def _i64(number: int) -> ctypes.c_int64:
    return ctypes.c_int64(number)


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    path = tmp_path_factory.mktemp("kernels") / "libturbo.so"
    compile_kernels(compiler(), path, "-O2", "-shared", "-fPIC")
    return Kernels(path)


def program(name: str, *arguments: str | Path) -> str:
    """What one of CMake's programs says; it must succeed."""
    done = subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def cmake_compilers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The compilers that a build of Ollama would take, zig's among them, as options of CMake."""
    kind, cc, cxx = compilers(BuildConfig(), tmp_path_factory.mktemp("compilers"))
    names = {"CMAKE_C_COMPILER": cc.path, "CMAKE_CXX_COMPILER": cxx.path}
    if kind == "zig":
        names |= {f"CMAKE_{name.upper()}": str(Path(cc.path).parent / name) for name in ("ar", "ranlib")}
    return ["-G", "Ninja", *(f"-D{name}={value}" for name, value in names.items())]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory, cmake_compilers: list[str]) -> Path:
    """CMake's build of the kernels as a library, with its tests."""

    def build(folder: Path) -> None:
        program("cmake", "-S", LIBRARY, "-B", folder, *cmake_compilers, "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON")
        program("cmake", "--build", folder)

    return once(tmp_path_factory, "library", build)
