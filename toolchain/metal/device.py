"""`metal.run` on a Mac: the same operations on the GPU, through llama.cpp's own test-backend-ops.

The series adds our types to that program's cases; it compares every operation of the GPU with the CPU's. Ollama's build
leaves it out, and the rest of a scratch tree needs sources of Ollama's, so it is built on the tree's ggml alone.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from ..build import apple, tools
from ..build.steps import MACOS_TARGET
from ..core.config import BuildConfig, Config
from ..core.console import Console, Step
from ..core.errors import BuildFailed, CommandFailed, MissingTool
from ..core.process import run
from ..core.records import sha256_bytes
from .results import Case, MetalRun

PROGRAM = "test-backend-ops"
METAL = "MTL0"
"""the first GPU's name"""
MAX_SECONDS = 3600.0
OPERATIONS = ("GET_ROWS", "SET_ROWS", "CPY", "FLASH_ATTN_EXT")
_SOURCE = Path(__file__).with_name("backend_ops")
_NINJA_STEP = re.compile(r"\[(\d+)/(\d+)\] (.*)")
_CASE = re.compile(r"^\s*(?P<op>[A-Z_]+)\((?P<given>[^)]*)\):\s*(?P<said>.*)$")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TYPES = re.compile(r"\btype(?:_\w+)?=(\w+)")


def configuration(tree: Path, folder: Path, settings: BuildConfig, workspace: Path) -> list[str]:
    """The words of CMake's command that configures the program in `folder`, with the backend of this machine.

    Raises `MissingTool`.
    """
    _, cc, cxx = tools.compilers(settings, workspace)
    metal = sys.platform == "darwin"
    values = {
        "LLAMA_CPP": tree,
        "CMAKE_MAKE_PROGRAM": tools.ninja().require().path,
        "CMAKE_C_COMPILER": cc.require().path,
        "CMAKE_CXX_COMPILER": cxx.require().path,
        "CMAKE_BUILD_TYPE": "Release",
        "BUILD_SHARED_LIBS": "OFF",
        "GGML_CCACHE": "OFF",
        "GGML_METAL": "ON" if metal else "OFF",
        "GGML_METAL_EMBED_LIBRARY": "ON" if metal else "OFF",
    }
    if metal:
        values |= {"CMAKE_OSX_ARCHITECTURES": "arm64", "CMAKE_OSX_DEPLOYMENT_TARGET": MACOS_TARGET}
    words = ["-G", "Ninja", "-S", str(_SOURCE), "-B", str(folder)]
    return [tools.cmake().require().path, *words, *(f"-D{name}={value}" for name, value in values.items())]


def build(tree: Path, config: Config, workspace: Path, console: Console) -> Path:
    """The program, built of a patched llama.cpp tree into a folder of `workspace`, if out of date.

    Raises `MissingTool`, `GpuUnavailable` on a Mac, and `BuildFailed` with the tail of CMake's output.
    """
    if sys.platform == "darwin":
        apple.require_tools()
    tree = tree.absolute()
    folder = workspace / "metal" / f"backend-ops-{sha256_bytes(str(tree).encode())[:16]}"
    log = workspace / "logs" / "backend-ops.log"
    with console.step(f"build {PROGRAM}") as step:
        run(configuration(tree, folder, config.build, workspace), log=log, failure=BuildFailed, what="configure")
        jobs = str(config.build.jobs or os.cpu_count() or 1)
        words = [tools.cmake().path, "--build", str(folder), "--target", PROGRAM, "--parallel", jobs]
        environment = {"NINJA_STATUS": "[%f/%t] "}
        run(words, log=log, env=environment, failure=BuildFailed, what="build", on_line=lambda line: _show(step, line))
    return folder / "bin" / PROGRAM


def _show(step: Step, line: str) -> None:
    if found := _NINJA_STEP.match(line):
        step.update(float(found[1]), float(found[2]), found[3])


def arguments(program: Path, types: tuple[str, ...], backend: str = METAL) -> list[str]:
    """The command: our operations on a backend, of cases that name one of `types`."""
    return [str(program), "test", "-o", ",".join(OPERATIONS), "-b", backend, "-p", "|".join(types)]


def run_device(program: Path, types: tuple[str, ...], console: Console, backend: str = METAL) -> MetalRun:
    """Run the program and read its verdicts; a case that the GPU does not take is left out.

    Raises `MissingTool` without the program and `CommandFailed` when it ran no case.
    """
    if not program.is_file():
        raise MissingTool(f"{program}: no such program", hint="without --program, metal.run builds it")
    with console.step("the cases on the GPU"):
        done = run(arguments(program, types, backend), check=False, timeout=MAX_SECONDS)
    cases = read(done.output)
    if not cases:
        said = done.output.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise CommandFailed(
            f"{program}: no case of {', '.join(types)} ran: {said[0]}", hint="is this a Mac with a GPU?"
        )
    passed = sum(case.ok for case in cases)
    return MetalRun(tree=str(program), cases=cases, passed=passed, failed=len(cases) - passed)


def read(output: str) -> tuple[Case, ...]:
    """The cases in the program's output."""
    found = []
    for line in _COLOURS.sub("", output).splitlines():
        case = _CASE.match(line)
        if not case or "not supported" in case["said"] or not case["said"]:
            continue
        given = dict(part.split("=", 1) for part in re.split(r",(?=\w+=)", case["given"]) if "=" in part)
        ok = case["said"].endswith("OK")
        found.append(
            Case(
                kernel=case["op"],
                type="/".join(dict.fromkeys(_TYPES.findall(case["given"]))),
                head_size=f"{given['hsk']}/{given['hsv']}" if "hsk" in given else "",
                max_error=None,
                bit_equal=None,
                ok=ok,
                wrong=() if ok else (f"{case['given']}: {case['said']}",),
            )
        )
    return tuple(found)
