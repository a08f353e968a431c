"""A compiled Metal library: its kernels, and dispatches of them in a process of their own."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..core.errors import KernelInvalid
from ..core.process import capture
from .findings import VARIABLES, ExecutorAnswer, Report, judge
from .instrument import Profile

Buffer = np.ndarray[Any, Any] | np.generic | bytes | bytearray | ctypes.Structure | None

BUFFERS = 31
MAX_THREADS = 1024
MAX_MEMORY = 32768
_MAGIC = 0x314C534D
_PAGE = 65536
_SPACES = ("buffer", "constant", "threadgroup")
_TYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4"]
_PARALLEL_FROM = 2048  # threads in all, below which a second worker costs more than it saves

_REQUEST = np.dtype(
    [
        ("magic", "u8"), ("kernel", "u4"), ("constants", "u4"), ("workers", "u4"), ("milliseconds", "u4"),
        ("groups", "u4", 3), ("threads", "u4", 3),
        ("buffers", [("offset", "u8"), ("size", "u8"), ("bound", "u4"), ("constant", "u4")], BUFFERS),
        ("threadgroups", "u4", BUFFERS), ("padding", "u4"),
        ("values", [("id", "u4"), ("size", "u4"), ("value", "u1", 16)], 256),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Argument:
    """A pointer or reference parameter of a kernel."""

    name: str
    space: int
    index: int
    size: int
    """bytes of what it points to"""
    whole: int
    """1: a reference, so the buffer must hold all of it"""
    writable: int


@dataclass(frozen=True)
class KernelEntry:
    """A kernel that was compiled."""

    name: str
    parameters: tuple[Argument, ...]


@dataclass(frozen=True)
class Constant:
    """A function constant; `code` is its type in runtime/interface.h."""

    id: int
    size: int
    code: int
    name: str


@dataclass(frozen=True)
class _Description:
    kernels: tuple[KernelEntry, ...]
    constants: tuple[Constant, ...]
    variables: tuple[int, ...]


class Library:
    """Compiled kernels of one Metal source. `compile` makes it."""

    def __init__(self, path: Path, program: Path, profile: Profile, known: tuple[str, ...]) -> None:
        self.path, self.program, self.profile = path, program, profile
        self.known = known
        """host names of all kernels in the source, compiled or not"""

    @cached_property
    def _description(self) -> _Description:
        return msgspec.json.decode(capture([self.program, "--list"], timeout=60).stdout, type=_Description)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Host names of the kernels that can be run."""
        return tuple(entry.name for entry in self._description.kernels)

    @property
    def constants(self) -> dict[str, int]:
        """Name and number of the source's function constants."""
        return {constant.name: constant.id for constant in self._description.constants}

    def threadgroup_bytes(self, kernel: str) -> int:
        """Bytes of a kernel's own threadgroup variables. Raises `KernelInvalid` for one that was not compiled."""
        number, _ = self._entry(kernel)
        return sum(self._description.variables[at] for at in self.profile.uses[number])

    def takes_threadgroup(self, kernel: str) -> bool:
        """Whether a kernel has a threadgroup argument. Raises `KernelInvalid` for one that was not compiled."""
        return any(_SPACES[argument.space] == "threadgroup" for argument in self._entry(kernel)[1].parameters)

    def run(
        self,
        kernel: str,
        buffers: Sequence[Buffer],
        *,
        grid: tuple[int, ...],
        threads: tuple[int, ...],
        function_constants: Mapping[int | str, bool | int | float] | None = None,
        threadgroup_bytes: Sequence[int] = (),
        threadgroup_limit: int = MAX_MEMORY,
        seconds: float = 60.0,
        workers: int = 0,
    ) -> Report:
        """Dispatch `grid` threadgroups of `threads` threads, and wait.

        `buffers` are bound by position; None binds an empty one. They are copied: what the kernel wrote is in the
        report, with the dtype and shape of what was bound. `threadgroup_bytes` are the lengths of the threadgroup
        arguments; with the kernel's variables they must fit in `threadgroup_limit` (Apple GPUs have 32 KiB). `seconds`
        bounds the CPU time of each of the `workers` processes (0: one for each core, as far as there is work). Raises
        `KernelInvalid` for a dispatch that does not fit; what a kernel does wrong while it runs is among the report's
        findings.
        """
        number, entry = self._entry(kernel)
        sizes = _three(kernel, "grid", grid), _three(kernel, "threads", threads)
        total = int(np.prod(sizes[1]))
        if total > MAX_THREADS:
            raise KernelInvalid(f"{kernel}: {total} threads in a threadgroup; Metal allows {MAX_THREADS}")
        content = [_bytes(kernel, index, buffer) for index, buffer in enumerate(buffers)]
        self._check(entry, content, threadgroup_bytes)
        own = self.threadgroup_bytes(kernel)
        if own + sum(threadgroup_bytes) > min(threadgroup_limit, 2 * MAX_MEMORY):
            raise KernelInvalid(
                f"{kernel}: {own + sum(threadgroup_bytes)} bytes of threadgroup memory, {own} of them in variables;"
                f" {threadgroup_limit} are allowed"
            )
        request = np.zeros((), _REQUEST)
        request["magic"], request["kernel"] = _MAGIC, number
        request["groups"], request["threads"] = sizes
        enough = int(np.prod(sizes[0])) * total >= _PARALLEL_FROM
        request["workers"] = max(1, min(workers or (os.cpu_count() or 1 if enough else 1), int(np.prod(sizes[0]))))
        request["milliseconds"] = max(1, int(seconds * 1000))
        for index, length in enumerate(threadgroup_bytes):
            request["threadgroups"][index] = length
        self._set_constants(request, function_constants or {})
        constant = {a.index for a in entry.parameters if _SPACES[a.space] == "constant"}
        offset = _round(_REQUEST.itemsize) + _PAGE
        for index, data in enumerate(content):
            request["buffers"][index] = (offset, len(data), 1, index in constant)
            offset += _round(len(data)) + _PAGE
        with tempfile.NamedTemporaryFile(prefix="metal-", suffix=".request") as file:
            file.truncate(offset)
            file.write(request.tobytes())
            for index, data in enumerate(content):
                file.seek(int(request["buffers"][index]["offset"]))
                file.write(data)
            file.flush()
            outcome = self._execute(kernel, Path(file.name), seconds)
            results = []
            for index, buffer in enumerate(buffers):
                file.seek(int(request["buffers"][index]["offset"]))
                results.append(_like(buffer, file.read(len(content[index]))))
        names = {(a.space == 2, a.index): a.name for a in entry.parameters}
        names |= {(True, VARIABLES + at): name for at, name in enumerate(self.profile.variables)}
        return judge(kernel, outcome, self.profile, names, tuple(results))

    def _entry(self, kernel: str) -> tuple[int, KernelEntry]:
        for number, entry in enumerate(self._description.kernels):
            if entry.name == kernel:
                return number, entry
        if kernel in self.known:
            raise KernelInvalid(f"{self.path}: the kernel {kernel} is there but was not compiled")
        raise KernelInvalid(f"{self.path}: there is no kernel {kernel}", hint=f"compiled: {', '.join(self.kernels)}")

    def _check(self, entry: KernelEntry, content: Sequence[memoryview], lengths: Sequence[int]) -> None:
        if len(content) > BUFFERS or len(lengths) > BUFFERS:
            raise KernelInvalid(f"{entry.name}: more than {BUFFERS} buffers")
        buffers = {a.index: a for a in entry.parameters if _SPACES[a.space] != "threadgroup"}
        for index in range(len(content)):
            if index not in buffers:
                raise KernelInvalid(f"{entry.name}: it has no buffer {index}", hint=_table(buffers))
        for index, argument in buffers.items():
            what = f"{entry.name}: buffer {index} ({argument.name})"
            if index >= len(content):
                raise KernelInvalid(f"{what} is not bound", hint="bind None where the kernel must not touch it")
            size = len(content[index])
            if size and argument.whole and size != argument.size:
                raise KernelInvalid(f"{what} has {size} bytes; the kernel's argument has {argument.size}")
            if size and size < argument.size:
                raise KernelInvalid(f"{what} has {size} bytes; one element has {argument.size}")
        groups = {a.index: a for a in entry.parameters if _SPACES[a.space] == "threadgroup"}
        for index, argument in groups.items():
            if index >= len(lengths) or not lengths[index]:
                raise KernelInvalid(f"{entry.name}: threadgroup argument {index} ({argument.name}) has no length")
        for index, length in enumerate(lengths):
            if length % 16 or length < 0:
                raise KernelInvalid(f"{entry.name}: threadgroup length {length}: Metal wants a multiple of 16")
            if length and index not in groups:
                raise KernelInvalid(f"{entry.name}: it has no threadgroup argument {index}")

    def _set_constants(self, request: Any, values: Mapping[int | str, bool | int | float]) -> None:
        by_name = {constant.name: constant for constant in self._description.constants}
        by_id = {constant.id: constant for constant in self._description.constants}
        for at, (key, value) in enumerate(values.items()):
            constant = by_name.get(key) if isinstance(key, str) else by_id.get(key)
            if constant is None:
                raise KernelInvalid(
                    f"{self.path}: there is no function constant {key}", hint=", ".join(by_name) or "none"
                )
            if constant.code < len(_TYPES):
                raw = np.asarray(value, dtype=_TYPES[constant.code]).tobytes()
            else:  # bfloat: the upper half of a float
                raw = np.asarray(value, dtype="f4").tobytes()[2:]
            request["values"][at]["id"], request["values"][at]["size"] = constant.id, constant.size
            request["values"][at]["value"][: len(raw)] = np.frombuffer(raw, "u1")
        request["constants"] = len(values)

    def _execute(self, kernel: str, request: Path, seconds: float) -> ExecutorAnswer:
        # the workers watch their own time; this limit is for what keeps them from it
        limit, what = seconds * 20 + 60, f"{kernel}: the executor"
        done = capture([self.program, request], timeout=limit, failure=KernelInvalid, what=what)
        return msgspec.json.decode(done.stdout, type=ExecutorAnswer)


def _three(kernel: str, what: str, size: tuple[int, ...]) -> tuple[int, int, int]:
    if not 1 <= len(size) <= 3 or any(n < 1 for n in size):
        raise KernelInvalid(f"{kernel}: {what} {size}: one to three numbers from 1 on")
    x, y, z = (*size, 1, 1)[:3]
    return x, y, z


def _round(size: int) -> int:
    return (size + _PAGE - 1) // _PAGE * _PAGE


def _bytes(kernel: str, index: int, buffer: Buffer) -> memoryview:
    if buffer is None:
        return memoryview(b"")
    if isinstance(buffer, np.ndarray | np.generic):
        return memoryview(np.ascontiguousarray(buffer).tobytes())
    if isinstance(buffer, bytes | bytearray | ctypes.Structure):
        return memoryview(bytes(buffer))
    raise KernelInvalid(f"{kernel}: buffer {index}: cannot bind a {type(buffer).__name__}")


def _like(buffer: Buffer, data: bytes) -> np.ndarray[Any, Any]:
    if isinstance(buffer, np.ndarray | np.generic):
        return np.frombuffer(data, buffer.dtype).reshape(buffer.shape).copy()
    return np.frombuffer(data, "u1").copy()


def _table(buffers: Mapping[int, Argument]) -> str:
    return "it has " + ", ".join(f"{index} ({argument.name})" for index, argument in sorted(buffers.items()))
