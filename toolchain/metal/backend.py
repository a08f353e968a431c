"""The kernels of a tree's own Metal backend, in one library or in several, of which a device asks them all."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..core.errors import KernelInvalid
from .compiler import check, preprocess
from .compiler import compile as compile_metal
from .layout import KernelSource, kernel_sources
from .library import Library
from .translation import read

Value = bool | int | float


class Backend:
    """The libraries of a tree; compiled kernels are kept in the folder `cache`.

    Kernels that match one of `kernels` (shell patterns; one without any is passed over) are compiled beforehand, with
    their function constants left open. Others are compiled one by one when they are asked for, with the constants of
    the dispatch, as a GPU makes a pipeline: what they rule out costs nothing then, neither here nor in what is counted.

    Raises `MetalLayoutUnknown`, and `KernelInvalid` or `NotModelled` for a source that does not compile.
    """

    def __init__(self, tree: Path, cache: Path, kernels: Iterable[str] = ()) -> None:
        self.tree, self.cache = tree, cache
        self._made: dict[tuple[Path, str, tuple[tuple[int | str, Value], ...]], Library] = {}
        self._open: dict[str, Library] = {}
        self._where: dict[str, KernelSource] = {}
        self._lock = threading.Lock()
        wanted = tuple(kernels)
        for part in kernel_sources(tree):
            names = read(preprocess(part.path, part.include, part.defines, text=part.text)).kernels
            self._where |= dict.fromkeys(names, part)
            if present := [pattern for pattern in wanted if fnmatch.filter(names, pattern)]:
                library = compile_part(part, present, cache)
                self._open |= dict.fromkeys(library.kernels, library)

    @property
    def known(self) -> tuple[str, ...]:
        """Names of all kernels."""
        return tuple(self._where)

    def of(self, kernel: str, constants: Mapping[int | str, Value]) -> Library:
        """A library that has a kernel, ready for a dispatch with those constants. Raises `KernelInvalid` for none."""
        if kernel in self._open:
            return self._open[kernel]
        if kernel not in self._where:
            raise KernelInvalid(f"{self.tree}: no library has a kernel {kernel}")
        return self.pipeline(self._where[kernel], kernel, constants)

    def pipeline(self, part: KernelSource, kernel: str, constants: Mapping[int | str, Value]) -> Library:
        """One kernel of a source, compiled once with those constants. Raises as `compile`."""
        key = part.path, kernel, tuple(sorted(constants.items(), key=str))
        with self._lock:
            made = self._made.get(key)
        if made is None:
            made = compile_part(part, [kernel], self.cache, constants)
            with self._lock:
                self._made[key] = made
        return made


def compile_part(
    part: KernelSource, kernels: Iterable[str], cache: Path, constants: Mapping[int | str, Value] | None = None
) -> Library:
    """Kernels of one library of a tree. Raises as `compile`."""
    return compile_metal(part.path, include=part.include, defines=part.defines, text=part.text, kernels=tuple(kernels),
                         constants=constants, cache=cache)  # fmt: skip


def check_kernels(tree: Path, defines: Mapping[str, str]) -> dict[str, tuple[Path, ...]]:
    """Compile all kernels of a tree as far as the types go: their names, and the sources that have each. Raises as
    `Backend`."""
    parts = kernel_sources(tree)
    with ThreadPoolExecutor() as pool:
        found = pool.map(
            lambda part: check(part.path, include=part.include, defines={**part.defines, **defines}, text=part.text),
            parts,
        )
        files: dict[str, tuple[Path, ...]] = {}
        for part, checked in zip(parts, found, strict=True):
            for name in checked.kernels:
                files[name] = (*files.get(name, ()), part.path)
    return files
