"""`metal.run` on a Mac: the same operations on the GPU, through llama.cpp's own test-backend-ops.

The series adds our types to that program's cases; it compares every operation of the GPU with the CPU's.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..core.console import Console
from ..core.errors import CommandFailed, MissingTool
from ..core.process import run
from .results import Case, MetalRun

PROGRAM = "test-backend-ops"
MAX_SECONDS = 3600.0
OPERATIONS = ("GET_ROWS", "SET_ROWS", "CPY", "FLASH_ATTN_EXT")
_CASE = re.compile(r"^\s*(?P<op>[A-Z_]+)\((?P<given>[^)]*)\):\s*(?P<said>.*)$")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TYPES = re.compile(r"\btype(?:_\w+)?=(\w+)")


def arguments(program: Path, types: tuple[str, ...]) -> list[str]:
    """The command: our operations on the Metal backend, of cases that name one of `types`."""
    return [str(program), "test", "-o", ",".join(OPERATIONS), "-b", "MTL0", "-p", "|".join(types)]


def run_device(program: Path, types: tuple[str, ...], console: Console) -> MetalRun:
    """Run the program and read its verdicts; a case that the GPU does not take is left out.

    Raises `MissingTool` without the program and `CommandFailed` when it ran no case.
    """
    if not program.is_file():
        raise MissingTool(f"{program}: no such program", hint=f"./inv build --targets {PROGRAM}, then --program PATH")
    with console.step("the cases on the GPU"):
        done = run(arguments(program, types), check=False, timeout=MAX_SECONDS)
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
