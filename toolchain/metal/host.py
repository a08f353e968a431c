"""A tree's own Metal host code, compiled without Metal: what it claims to support, and the dispatches that it makes.

`ggml-metal-ops.cpp` and `ggml-metal-device.cpp` are plain C++ over a small interface to Objective-C, and so is the
function that answers which operations are supported. `recorder/recorder.cpp` stands for that interface and writes
everything down.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..build.tools import compilers
from ..config import Config
from ..errors import BuildFailed, KernelInvalid
from ..process import run
from ..records import sha256_bytes
from ..series.place import find_scopes

METAL = Path("ggml/src/ggml-metal")
_OWN = Path(__file__).parent / "recorder"
_SUPPORTS = "bool ggml_metal_device_supports_op("
_FLAGS = ("-O1", "-w", "-D_GNU_SOURCE", '-DGGML_VERSION="0"', '-DGGML_COMMIT="0"')
# Whichever of these a tree has, without what only a whole backend needs.
_SOURCES = (
    "ggml/src/ggml.c",
    "ggml/src/ggml-quants.c",
    "ggml/src/ggml-turbo*.c",
    "ggml/src/ggml-threading.cpp",
    "ggml/src/ggml-metal/ggml-metal-ops.cpp",
    "ggml/src/ggml-metal/ggml-metal-device.cpp",
    "ggml/src/ggml-metal/ggml-metal-common.cpp",
)


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An operand: type by name, up to four sizes, and for each the bytes from one to the next."""

    type: str
    ne: tuple[int, ...]
    nb: tuple[int, ...]

    def words(self) -> str:
        sizes = (*self.ne, *[1] * (4 - len(self.ne)))
        strides = (*self.nb, *[self.nb[-1] * self.ne[-1]] * (4 - len(self.nb)))
        return " ".join(map(str, (self.type, *sizes, *strides)))


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation of a graph: its name in ggml, result, operands (None: absent), parameters as 32-bit words."""

    name: str
    result: Tensor
    operands: tuple[Tensor | None, ...]
    parameters: tuple[int, ...] = ()

    def words(self) -> str:
        tensors = [self.result, *self.operands]
        return " ".join(
            [self.name, *map(str, (len(self.parameters), *self.parameters, len(tensors)))]
            + [tensor.words() if tensor else "- 0 0 0 0 0 0 0 0" for tensor in tensors]
        )


class Dispatch(msgspec.Struct, frozen=True):
    """One dispatch: buffers are (number of the tensor, offset), the result being tensor 0; bytes are hexadecimal."""

    kernel: str
    constants: dict[str, bool | int]
    bytes: dict[str, str]
    buffers: dict[str, tuple[int, int]]
    memory: int
    groups: tuple[int, int, int]
    threads: tuple[int, int, int]


class Recorded(msgspec.Struct, frozen=True):
    """What the host code does for an operation; `extra` are bytes that it allocates behind the result."""

    claimed: bool
    extra: int
    dispatches: list[Dispatch]


class Kind(msgspec.Struct, frozen=True):
    """A type of the tree: `block` values take `bytes` bytes."""

    name: str
    block: int
    bytes: int


class Host:
    """The recorder of one tree."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def types(self) -> dict[str, Kind]:
        """The tree's types by name."""
        said = subprocess.run([self.program, "--types"], capture_output=True, text=True, timeout=60, check=True).stdout
        kinds = [msgspec.json.decode(line, type=Kind) for line in said.splitlines()]
        return {kind.name: kind for kind in kinds}

    def record(self, operations: Sequence[Operation], *, claims_only: bool = False) -> list[Recorded]:
        """What the host code does for each; `claims_only` leaves out the dispatches.

        Raises `KernelInvalid` where the host code gives up, with what it said.
        """
        done = subprocess.run(
            [self.program, *(["--claims"] if claims_only else [])],
            input="\n".join(operation.words() for operation in operations),
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        answers = [msgspec.json.decode(line, type=Recorded) for line in done.stdout.splitlines()]
        if done.returncode or len(answers) != len(operations):
            at = operations[min(len(answers), len(operations) - 1)]
            said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            raise KernelInvalid(f"the host code gives up on {at.name} ({at.words()}): {said[0]}")
        return answers


def build_host(tree: Path, config: Config, workspace: Path) -> Host:
    """Compile the recorder for the sources at `tree`, into `workspace`; kept until they change.

    Raises `BuildFailed` for a tree without a Metal backend, or one whose host code does not fit the recorder.
    """
    device = tree / METAL / "ggml-metal-device.m"
    if not device.is_file():
        raise BuildFailed(f"{tree}: no {METAL / device.name}", hint="a llama.cpp with a Metal backend has it")
    supports = _supports(device)
    cc, cxx = (tool.require() for tool in compilers(config.build, workspace)[1:])
    sources = [path for pattern in _SOURCES for path in sorted(tree.glob(pattern))]
    own = [_OWN / "recorder.cpp", _OWN / "absent.c"]
    if not (tree / "ggml/src/ggml-threading.cpp").is_file():
        # a tree so small that the whole of it can be had
        sources += [tree / "ggml/src/ggml-backend.cpp", *sorted((tree / "ggml/src/ggml-cpu").glob("*.c*"))]
        own.pop()
    headers = [*(tree / METAL).glob("*.h"), *(tree / "ggml/include").glob("*.h"), *_OWN.iterdir()]
    digest = sha256_bytes(
        b"".join(path.read_bytes() for path in sorted({*sources, *headers, *own}))
        + supports.encode()
        + cc.version.encode()
    )
    folder = workspace / "metal" / f"host-{digest[:16]}"
    program = folder / "recorder"
    if program.is_file():
        return Host(program)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "supports.c").write_text(supports, encoding="utf-8")
    paths = (_OWN, tree / METAL, tree / "ggml/src", tree / "ggml/src/ggml-cpu", tree / "ggml/include")
    include = [word for path in paths for word in ("-I", str(path))]
    extra = f"-DRECORDER_EXTRA_BYTES(op)=({_extra_bytes(tree)})"

    def compile_one(source: Path) -> Path:
        out = folder / f"{source.parent.name}-{source.name}.o"
        plus = source.suffix == ".cpp"
        argv = [cxx.path if plus else cc.path, "-std=gnu++17" if plus else "-std=gnu11", *_FLAGS, extra, *include]
        run([*argv, "-c", str(source), "-o", str(out)], failure=BuildFailed, what=f"compiling {source.name}")
        return out

    with ThreadPoolExecutor() as pool:
        objects = list(pool.map(compile_one, [*sources, *own, folder / "supports.c"]))
    part = program.with_suffix(".part")
    run(
        [cxx.path, *map(str, objects), "-lm", "-lpthread", "-o", str(part)],
        failure=BuildFailed,
        what="linking the recorder",
    )
    part.replace(program)
    return Host(program)


def _supports(device: Path) -> str:
    """A C file with the function that says which operations are supported, and what it needs."""
    text = device.read_text(encoding="utf-8")
    spans = find_scopes(text, "c", _SUPPORTS)
    if len(spans) != 1:
        raise BuildFailed(f"{device}: {len(spans)} definitions of {_SUPPORTS.removesuffix('(')}, not one")
    begin = text.rindex("\n", 0, text.rindex(_SUPPORTS, 0, spans[0].start)) + 1
    end = text.index("}", spans[0].end) + 1
    headers = re.findall(r'^#\s*(?:import|include)\s+("[^"]+")', text, re.MULTILINE)
    lines = ['#include "recorder.h"', *(f"#include {header}" for header in headers), text[begin:end], ""]
    return "\n".join(lines)


def _extra_bytes(tree: Path) -> str:
    header = (tree / METAL / "ggml-metal-ops.h").read_text(encoding="utf-8")
    names = re.findall(r"\b(ggml_metal_op_flash_attn_ext_extra_\w+)\(", header)
    return " + ".join(f"{name}(op)" for name in names) or "0"
