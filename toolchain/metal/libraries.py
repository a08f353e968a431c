"""The Metal libraries of a tree: the backend's own, and those that its host code makes from a source."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from .compiler import compile as compile_metal
from .host import Dispatch
from .library import Library

Constants = tuple[tuple[str, bool | int], ...]


class Libraries:
    """Compiled kernels by dispatch.

    A kernel is compiled with the constants of its dispatch, as a GPU makes a pipeline: what they rule out costs nothing
    then, neither here nor in what is counted. `own`, the backend's library, is compiled beforehand with its constants
    left open; where it is absent, its kernels are compiled one by one as well, from `path`.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        folder: Path,
        *,
        own: Library | None = None,
        path: Path | None = None,
        include: Sequence[Path] = (),
    ) -> None:
        self.own, self._folder, self._include = own, folder, tuple(include)
        self._paths = {"": path} if path else {}
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in sources.items():
            self._paths[name] = folder / f"{name}.metal"
            self._paths[name].write_text(source, encoding="utf-8")
        self._made: dict[tuple[str, str, Constants], Library] = {}
        self._lock = threading.Lock()

    def of(self, dispatch: Dispatch) -> Library:
        """The library that has the kernel of a dispatch. Raises as `compile` for one that cannot be compiled."""
        if not dispatch.library and self.own:
            return self.own
        key = (dispatch.library, dispatch.kernel, tuple(sorted(dispatch.constants.items())))
        with self._lock:
            made = self._made.get(key)
        if made is None:
            made = compile_metal(
                self._paths[dispatch.library],
                include=() if dispatch.library else self._include,
                kernels=[dispatch.kernel],
                constants={int(number): value for number, value in dispatch.constants.items()},
                cache=self._folder / "kernels",
            )
            with self._lock:
                self._made[key] = made
        return made
