"""The Metal libraries of a tree: the backend's own, and those that its host code makes from a source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core.records import sha256_bytes, write_bytes
from .backend import Backend, Value
from .compiler import check
from .host import Dispatch
from .layout import KernelSource
from .library import Library


class Libraries:
    """Compiled kernels by dispatch.

    Of a library that the host code makes, each kernel is compiled with the constants of the dispatch, as a GPU makes a
    pipeline: what they rule out costs nothing then, neither here nor in what is counted.
    """

    def __init__(self, backend: Backend, sources: Mapping[str, str], folder: Path) -> None:
        """`sources` are by the names that dispatches give them; they are written below `folder`."""
        self.backend = backend
        self._parts: dict[str, KernelSource] = {}
        for name, source in sources.items():
            # by content: other operations may be given another source of the same name, and others may be using it
            path = folder / sha256_bytes(source.encode())[:16] / f"{name}.metal"
            if not path.is_file():
                write_bytes(path, source.encode())
            self._parts[name] = KernelSource(path=path, include=())

    def known(self) -> frozenset[tuple[str, str]]:
        """Every kernel there is, as library and name. Raises as `compile` for a source that cannot be compiled."""
        own = {(name, kernel) for name, part in self._parts.items() for kernel in check(part.path).kernels}
        return frozenset({("", kernel) for kernel in self.backend.known} | own)

    def of(self, dispatch: Dispatch) -> Library:
        """The library that has the kernel of a dispatch. Raises as `compile` for one that cannot be compiled."""
        constants: dict[int | str, Value] = {int(key): value for key, value in dispatch.constants.items()}
        if not dispatch.library:
            return self.backend.of(dispatch.kernel, constants)
        return self.backend.pipeline(self._parts[dispatch.library], dispatch.kernel, constants)
