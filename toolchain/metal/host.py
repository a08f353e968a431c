"""A tree's own Metal host code, compiled without Metal: what it claims to support, and the dispatches that it makes.

`ggml-metal-ops.cpp` and `ggml-metal-device.cpp` are plain C++ over a small interface to Objective-C, and so is the
function that answers which operations are supported. `recorder/recorder.cpp` stands for that interface and writes
everything down.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..build.tools import Tool, compilers
from ..core.config import Config
from ..core.errors import BuildFailed, KernelInvalid
from ..core.process import Captured, capture, run
from ..core.records import sha256_bytes, sha256_file
from ..series.place import find_scopes

METAL = Path("ggml/src/ggml-metal")
_OWN = Path(__file__).parent / "recorder"
_SUPPORTS = "bool ggml_metal_device_supports_op("
_ALLOC = "size_t ggml_backend_metal_buffer_type_get_alloc_size("
_FLAGS = ("-O1", "-w", "-D_GNU_SOURCE", '-DGGML_VERSION="0"', '-DGGML_COMMIT="0"')
_CORE = (Path("ggml/src"), Path("ggml/src/ggml-cpu"), Path("ggml/include"))
# Whichever of these a tree has, without what only a whole backend needs.
_SOURCES = (
    "ggml/src/ggml.c",
    "ggml/src/ggml-quants.c",
    "ggml/src/ggml-turbo*.c",
    "ggml/src/ggml-threading.cpp",
    "ggml/src/ggml-metal/ggml-metal-*.cpp",
)


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An operand: type by name, up to four sizes, and for each the bytes from one to the next.

    `view_of`, the number of an earlier operand, makes it a part of that one's memory, from its beginning on.
    """

    type: str
    ne: tuple[int, ...]
    nb: tuple[int, ...]
    view_of: int | None = None

    def words(self) -> str:
        sizes = (*self.ne, *[1] * (4 - len(self.ne)))
        strides = (*self.nb, *[self.nb[-1] * self.ne[-1]] * (4 - len(self.nb)))
        origin = "" if self.view_of is None else f"@{self.view_of}"
        return " ".join(map(str, (self.type + origin, *sizes, *strides)))


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
    """One dispatch: buffers are (number of the tensor, offset), the result being tensor 0; bytes are hexadecimal.

    `library` is empty for the device's own library, else the name of one that the host code made from a source.
    """

    kernel: str
    library: str
    constants: dict[str, bool | int]
    bytes: dict[str, str]
    buffers: dict[str, tuple[int, int]]
    memory: int
    groups: tuple[int, int, int]
    threads: tuple[int, int, int]


class RecordedOperation(msgspec.Struct, frozen=True):
    """What the host code does for an operation; `extra` are bytes that it allocates behind the result."""

    claimed: bool
    extra: int
    dispatches: list[Dispatch]


class Made(msgspec.Struct, frozen=True):
    """A library that the host code had compiled from a source of its own."""

    name: str
    source: str


class Kind(msgspec.Struct, frozen=True):
    """A type of the tree: `block` values take `bytes` bytes."""

    name: str
    block: int
    bytes: int


class Host:
    """The recorder of one tree. `limits` make the device less able; recorder.cpp names them."""

    def __init__(self, program: Path, limits: Mapping[str, str] | None = None) -> None:
        self.program = program
        self.limits = dict(limits or {})

    def types(self) -> dict[str, Kind]:
        """The tree's types by name."""
        said = capture([self.program, "--types"], timeout=60).stdout
        kinds = [msgspec.json.decode(line, type=Kind) for line in said.splitlines()]
        return {kind.name: kind for kind in kinds}

    def record(self, operations: Sequence[Operation], *, claims_only: bool = False) -> list[RecordedOperation]:
        """What the host code does for each; `claims_only` leaves out the dispatches.

        Raises `KernelInvalid` where the host code gives up, with what it said.
        """
        done = self._run(["--claims"] if claims_only else [], operations)
        answers = [msgspec.json.decode(line, type=RecordedOperation) for line in done.stdout.splitlines()]
        if done.returncode or len(answers) != len(operations):
            at = operations[min(len(answers), len(operations) - 1)]
            said = done.error_text.strip().splitlines() or [f"it ended with {done.returncode}"]
            raise KernelInvalid(f"the host code gives up on {at.name} ({at.words()}): {said[0]}")
        return answers

    def sources(self, operations: Sequence[Operation]) -> dict[str, str]:
        """The libraries that the host code makes when it is asked for these operations: Metal source by name."""
        done = self._run(["--sources"], operations)
        made = [msgspec.json.decode(line, type=Made) for line in done.stdout.splitlines()]
        return {one.name: one.source for one in made}

    def log(self, operations: Sequence[Operation]) -> str:
        """What the host code says on the way."""
        return self._run(["--claims"], operations).error_text

    def _run(self, words: list[str], operations: Sequence[Operation]) -> Captured:
        given = "\n".join(operation.words() for operation in operations).encode()
        return capture([self.program, *words], given=given, timeout=120, check=False, env=self.limits)


def build_host(tree: Path, config: Config, workspace: Path) -> Host:
    """Compile the recorder for the sources at `tree`, into `workspace`; kept until they change.

    Raises `BuildFailed` for a tree without a Metal backend, or one whose host code does not fit the recorder.
    """
    device = tree / METAL / "ggml-metal-device.m"
    if not device.is_file():
        raise BuildFailed(f"{tree}: no {METAL / device.name}", hint="a llama.cpp with a Metal backend has it")
    supports, alloc = _supports(device), _alloc(tree / METAL / "ggml-metal.cpp")
    cc, cxx = (tool.require() for tool in compilers(config.build, workspace)[1:])
    sources = [path for pattern in _SOURCES for path in sorted(tree.glob(pattern))]
    own = [_OWN / "recorder.cpp", _OWN / "absent.c"]
    if not (tree / "ggml/src/ggml-threading.cpp").is_file():
        # a tree so small that the whole of it can be had
        sources += [tree / "ggml/src/ggml-backend.cpp", *sorted((tree / "ggml/src/ggml-cpu").glob("*.c*"))]
        own.pop()
    store = workspace / "metal"
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="host-", dir=store) as scratch, ThreadPoolExecutor() as pool:
        made = [Path(scratch) / "supports.c", Path(scratch) / "alloc.cpp"]
        made[0].write_text(supports, encoding="utf-8")
        made[1].write_text(alloc, encoding="utf-8")
        core = tuple(tree / folder for folder in _CORE)
        # what is kept names no tree, so that it serves every one of the same content
        flags = (*_FLAGS, f"-fmacro-prefix-map={tree}/=")
        plain, backend = (_Compiler(cc, cxx, flags, folders, store) for folders in (core, (_OWN, tree / METAL, *core)))
        paths = [*sources, *own, *made]
        objects = list(pool.map(lambda path: (plain if path.parent in core else backend).compile(path), paths))
        digest = sha256_bytes("\n".join([cxx.version, *(out.name for out in objects)]).encode())
        program = store / f"host-{digest[:16]}" / "recorder"
        if not program.is_file():
            part = Path(scratch) / "recorder"
            words = [*map(str, objects), "-lm", "-lpthread", "-o", str(part)]
            run([cxx.path, *words], failure=BuildFailed, what="linking the recorder")
            program.parent.mkdir(exist_ok=True)
            part.replace(program)
    return Host(program)


class _Compiler:
    """Compiles sources that see the headers of some folders; objects are kept in `store` by all that went in."""

    def __init__(self, cc: Tool, cxx: Tool, flags: Sequence[str], folders: Sequence[Path], store: Path) -> None:
        self._store = store
        include = [word for folder in folders for word in ("-I", str(folder))]
        self._commands = {
            ".c": ([cc.path, "-std=gnu11", *flags, *include], cc.version),
            ".cpp": ([cxx.path, "-std=gnu++17", *flags, *include], cxx.version),
        }
        headers = [path for folder in folders for path in sorted(folder.glob("*.h"))]
        self._seen = "".join(f"{path.name} {sha256_file(path)}\n" for path in headers) + " ".join(_FLAGS)

    def compile(self, source: Path) -> Path:
        """The object file of a source. Raises `BuildFailed`."""
        command, version = self._commands[source.suffix]
        key = sha256_bytes(f"{self._seen}\n{version}\n{source.name} {sha256_file(source)}".encode())
        out = self._store / f"{source.name}-{key[:16]}.o"
        if not out.is_file():
            part = self._store / f".{out.name}.{os.getpid()}"
            run([*command, "-c", source, "-o", part], failure=BuildFailed, what=f"compiling {source.name}")
            part.replace(out)
        return out


def _supports(device: Path) -> str:
    """A C file with the function that says which operations are supported, and what it needs."""
    text = device.read_text(encoding="utf-8")
    headers = re.findall(r'^#\s*(?:import|include)\s+("[^"]+")', text, re.MULTILINE)
    lines = [
        '#include "recorder.h"',
        *(f"#include {header}" for header in headers),
        _function(device, text, _SUPPORTS),
        "",
    ]
    return "\n".join(lines)


def _alloc(backend: Path) -> str:
    """A C++ file with the function that says what a result takes in the device's memory."""
    text = backend.read_text(encoding="utf-8") if backend.is_file() else ""
    headers = re.findall(r'^#\s*include\s+("ggml[^"]+")', text, re.MULTILINE)
    name = _ALLOC.split()[-1]
    lines = [*(f"#include {header}" for header in headers), _function(backend, text, _ALLOC), '#include "recorder.h"']
    lines += [f"size_t recorder_alloc_size(const ggml_tensor * op) {{ return {name}nullptr, op); }}", ""]
    return "\n".join(lines)


def _function(path: Path, text: str, head: str) -> str:
    spans = find_scopes(text, "c", head)
    if len(spans) != 1:
        raise BuildFailed(f"{path}: {len(spans)} definitions of {head.removesuffix('(')}, not one")
    begin = text.rindex("\n", 0, text.rindex(head, 0, spans[0].start)) + 1
    return text[begin : text.index("}", spans[0].end) + 1]
