"""Where headers and sources are read from: a commit of a repository, or a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ...core.errors import HeaderInvalid, UnknownRevision
from ...core.records import record
from ...sources import eras
from ...sources.repository import Repository

_SOURCES = frozenset((".c", ".cc", ".cpp", ".h", ".hpp", ".m", ".mm", ".cu", ".cuh", ".go"))


class SourceTree(Protocol):
    """Files by their path in the tree."""

    origin: str
    """commit id, or the folder"""
    describe: str

    def read(self, path: str) -> bytes | None:
        """Content of a file; None where there is none."""

    def paths(self, under: str) -> list[str]:
        """Files below a folder, sorted."""

    def containing(self, texts: Sequence[str], under: Sequence[str]) -> list[str]:
        """Files below the folders that contain one of the texts."""

    def present(self, texts: Sequence[str], under: Sequence[str], *, words: bool = False) -> frozenset[str]:
        """Those of the texts that occur in a file below the folders; with `words`, not as a part of a longer word."""


class CommitTree:
    """The tree of a commit. The repository is only read."""

    def __init__(self, repository: Repository, commit: str, describe: str) -> None:
        self._repository = repository
        self.origin = commit
        self.describe = describe

    def read(self, path: str) -> bytes | None:
        """See `SourceTree`. Raises `FetchFailed` for a content that a partial clone lacks."""
        return self._repository.read_blob(self.origin, path)

    def paths(self, under: str) -> list[str]:
        """See `SourceTree`."""
        return self._repository.paths(self.origin, under)

    def containing(self, texts: Sequence[str], under: Sequence[str]) -> list[str]:
        """See `SourceTree`. Raises `FetchFailed` for a content that a partial clone lacks."""
        if not texts:
            return []
        found = self._repository.grep(self.origin, texts, under, "-l")
        return [name.removeprefix(f"{self.origin}:") for name in found]

    def present(self, texts: Sequence[str], under: Sequence[str], *, words: bool = False) -> frozenset[str]:
        """See `SourceTree`. Raises `FetchFailed` for a content that a partial clone lacks."""
        options = ("-h", "-o", *(("-w",) if words else ()))
        return frozenset(self._repository.grep(self.origin, texts, under, *options) if texts else ())


class FolderTree:
    """A folder, such as a scratch tree with the series applied."""

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()
        if not self._root.is_dir():
            raise UnknownRevision(f"{self._root}: no such folder", hint="name a folder, or a branch, tag or commit")
        self.origin = self.describe = str(self._root)

    def read(self, path: str) -> bytes | None:
        """See `SourceTree`. Raises `HeaderInvalid` for a file that cannot be read."""
        file = self._root / path
        try:
            return file.read_bytes() if file.is_file() else None
        except OSError as error:
            raise HeaderInvalid(f"{file}: cannot be read: {error.strerror}") from error

    def paths(self, under: str) -> list[str]:
        """See `SourceTree`."""
        found = (self._root / under).rglob("*")
        return sorted(str(path.relative_to(self._root)) for path in found if path.is_file())

    def containing(self, texts: Sequence[str], under: Sequence[str]) -> list[str]:
        """See `SourceTree`."""
        wanted = [text.encode() for text in texts]
        return [path for path, content in self._sources(under) if any(text in content for text in wanted)]

    def present(self, texts: Sequence[str], under: Sequence[str], *, words: bool = False) -> frozenset[str]:
        """See `SourceTree`."""
        edge = rb"\b" if words else b""
        missing = {text: re.compile(edge + re.escape(text.encode()) + edge) for text in texts}
        for _, content in self._sources(under):
            missing = {text: form for text, form in missing.items() if not form.search(content)}
        return frozenset(texts) - missing.keys()

    def _sources(self, under: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for path in (path for folder in under for path in self.paths(folder)):
            if Path(path).suffix in _SOURCES:
                yield path, self.read(path) or b""


@record
class HeaderLayout:
    """Where a tree keeps its public headers, and its sources."""

    name: str
    llama: str
    ggml: str
    mtmd: str
    sources: tuple[str, ...]


_SOURCE_FOLDERS = ("ggml/src", "src", "common", "tools/mtmd")
LAYOUTS = (
    HeaderLayout(name="llama.cpp", llama="include", ggml="ggml/include", mtmd="tools/mtmd", sources=_SOURCE_FOLDERS),
    *(
        HeaderLayout(
            name=f"{era.name} Ollama",
            llama=era.place("include"),
            ggml=era.place("ggml/include"),
            mtmd=era.place("tools/mtmd"),
            sources=tuple(era.place(folder) for folder in _SOURCE_FOLDERS),
        )
        for era in eras.ERAS
        if "llama.cpp" not in era.targets
    ),
)
_MTMD = ("mtmd.h", "mtmd-helper.h")
"""Of tools/mtmd, the headers that C can include."""


def layout_of(tree: SourceTree) -> HeaderLayout:
    """How a tree is laid out. Raises `HeaderInvalid` for one that is not llama.cpp's."""
    for layout in LAYOUTS:
        if tree.read(f"{layout.llama}/llama.h") is not None:
            return layout
    looked = ", ".join(f"{layout.llama}/llama.h" for layout in LAYOUTS)
    raise HeaderInvalid(
        f"{tree.describe}: not a tree of llama.cpp (looked for {looked})",
        hint="check the repository and its ref; trees from before July 2024 have their headers elsewhere",
    )


def headers(tree: SourceTree) -> tuple[HeaderLayout, dict[str, bytes]]:
    """The layout of a tree and the contents of its public C headers, by path.

    Headers for C++ (`*-cpp.h`) are ignored. Raises `HeaderInvalid` for a tree that is not llama.cpp's.
    """
    layout = layout_of(tree)
    main = f"{layout.llama}/llama.h"
    names = [main, *(f"{layout.mtmd}/{name}" for name in _MTMD)]
    names += [
        path
        for path in tree.paths(layout.ggml)
        if path.endswith(".h") and not path.endswith("-cpp.h") and path.count("/") == layout.ggml.count("/") + 1
    ]
    found = {path: content for path in sorted(names) if (content := tree.read(path)) is not None}
    if f"{layout.ggml}/ggml.h" not in found:
        raise HeaderInvalid(
            f"{tree.describe}: there is no {layout.ggml}/ggml.h beside {main}", hint="is the tree complete?"
        )
    return layout, found
