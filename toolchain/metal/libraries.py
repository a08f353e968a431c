"""The Metal libraries of a tree: the backend's own, and those that its host code makes from a source."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from .backend import Backend
from .compiler import check
from .compiler import compile as compile_metal
from .host import Dispatch
from .library import Library


class Libraries:
    """Compiled kernels by dispatch.

    Of a library that the host code makes, each kernel is compiled with the constants of the dispatch, as a GPU makes a
    pipeline: what they rule out costs nothing then, neither here nor in what is counted.
    """

    def __init__(self, backend: Backend, sources: Mapping[str, str], folder: Path) -> None:
        """`sources` are by the names that dispatches give them; they are written into `folder`."""
        self.backend = backend
        self._paths: dict[str, Path] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in sources.items():
            self._paths[name] = folder / f"{name}.metal"
            self._paths[name].write_text(source, encoding="utf-8")
        self._made: dict[tuple[str, str, tuple[tuple[str, bool | int], ...]], Library] = {}
        self._lock = threading.Lock()

    def known(self) -> frozenset[tuple[str, str]]:
        """Every kernel there is, as library and name. Raises as `compile` for a source that cannot be compiled."""
        own = {(name, kernel) for name, path in self._paths.items() for kernel in check(path).kernels}
        return frozenset({("", kernel) for kernel in self.backend.known} | own)

    def of(self, dispatch: Dispatch) -> Library:
        """The library that has the kernel of a dispatch. Raises as `compile` for one that cannot be compiled."""
        constants: dict[int | str, bool | int | float] = {int(key): value for key, value in dispatch.constants.items()}
        if not dispatch.library:
            return self.backend.of(dispatch.kernel, constants)
        key = (dispatch.library, dispatch.kernel, tuple(sorted(dispatch.constants.items())))
        with self._lock:
            made = self._made.get(key)
        if made is None:
            made = compile_metal(
                self._paths[dispatch.library],
                kernels=[dispatch.kernel],
                constants=constants,
                cache=self.backend.cache,
            )
            with self._lock:
                self._made[key] = made
        return made
