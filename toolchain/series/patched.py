"""The files of a tree with the series in them, which of their lines are ours, and what they include."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from ..core.errors import FolderUnusable
from ..core.records import record
from .edit import Splice, splice_all
from .facts import Facts
from .lexing import language_of, mask
from .manifest import Series
from .render import EditOutcome, outcomes_on, own_file, read_text, served_parts
from .tree import Tree

INCLUDED = (
    "include", "src", "common", "vendor", "tools/mtmd", "ggml/include", "ggml/src", "ggml/src/ggml-cpu",
    "ggml/src/ggml-metal",
)  # fmt: skip
"""where llama.cpp's build looks for headers; ggml-cpu's common.h is found from its own folder only"""
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*(?:include|import)[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)', re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*")

Read = Callable[[str], "bytes | None"]


@record
class Patched:
    """One tree with the series applied, without a work tree."""

    files: dict[str, bytes]
    """added and edited files, with the series applied"""
    own: dict[str, tuple[tuple[int, int], ...]]
    """for each file the ranges of our lines, first and last, from 1"""
    added: frozenset[str]
    """files that upstream does not have"""

    def is_own(self, path: str, line: int) -> bool:
        """Whether a line is ours."""
        return any(first <= line <= last for first, last in self.own.get(path, ()))

    def own_text(self, path: str) -> str:
        """Our lines of a file."""
        lines = self.files[path].decode().split("\n")
        return "\n".join(line for first, last in self.own.get(path, ()) for line in lines[first - 1 : last])

    def words(self) -> dict[str, list[str]]:
        """Every identifier in our C, C++ and Objective-C, with the files that use it."""
        found: dict[str, list[str]] = {}
        for path in self.own:
            if language_of(path) == "c" and not path.endswith(".metal"):
                # strings, such as a source for another compiler, do not count as uses
                for word in set(_WORD.findall(mask(self.own_text(path), "c", strings=True))):
                    found.setdefault(word, []).append(path)
        return found


def patch(series: Series, tree: Tree, facts: Facts) -> Patched:
    """Render the files of a tree. Raises the error of the first edit that does not apply; ignores plain patches."""
    outcomes = list(outcomes_on(series, tree, facts))
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error
    return assemble(series, tree, facts, outcomes)


def assemble(series: Series, tree: Tree, facts: Facts, outcomes: Iterable[EditOutcome]) -> Patched:
    """The files of a tree with those edits that apply."""
    splices: dict[str, list[Splice]] = {}
    for outcome in outcomes:
        splices.setdefault(outcome.edit.file, []).extend(outcome.splices)
    files, own = dict[str, bytes](), dict[str, tuple[tuple[int, int], ...]]()
    for path, found in splices.items():
        text = read_text(tree, path)
        if text is not None and found:
            files[path] = splice_all(text, found).encode()
            own[path] = _lines(text, found)
    added = set()
    for loaded in served_parts(series, tree):
        for path in loaded.files:
            files[path] = own_file(loaded, path, facts)
            own[path] = ((1, files[path].count(b"\n") + 1),)
            added.add(path)
    return Patched(files=files, own=own, added=frozenset(added))


def _lines(text: str, splices: list[Splice]) -> tuple[tuple[int, int], ...]:
    """The lines of the result that the splices add or change."""
    ranges, added = [], 0
    for splice in sorted(splices, key=lambda one: (one.start, one.end)):
        first = text.count("\n", 0, splice.start) + 1 + added
        grown = splice.text.count("\n")
        last = first + max(grown - splice.text.endswith("\n"), 0)
        ranges.append((first, last))
        added += grown - text.count("\n", splice.start, splice.end)
    return tuple(ranges)


def reader(tree: Tree, patched: Patched | None = None) -> Read:
    """Reads the files of a tree, with the series applied when `patched` is given."""

    def read(path: str) -> bytes | None:
        known = patched.files.get(path) if patched else None
        return known if known is not None else tree.read(path)

    return read


def included(read: Read, present: frozenset[str], roots: Iterable[str]) -> dict[str, bytes]:
    """The files `roots`, and all files of the tree that they include, directly or not. `present` are its paths."""
    found: dict[str, bytes] = {}
    todo = list(roots)
    while todo:
        path = todo.pop()
        if path in found:
            continue
        content = read(path)
        if content is None:
            continue
        found[path] = content
        for match in _INCLUDE.finditer(content):
            name = (match[1] or match[2]).decode(errors="replace")
            target = resolve(name, path, present)
            if target and target not in found:
                todo.append(target)
    return found


def resolve(name: str, includer: str, present: frozenset[str]) -> str | None:
    """The path in the tree that an include names, searched as a compiler does."""
    for folder in (PurePosixPath(includer).parent.as_posix(), *INCLUDED):
        parts: list[str] = []
        for part in PurePosixPath(folder, name).parts:
            if part == ".." and parts:
                parts.pop()
            elif part != ".":
                parts.append(part)
        path = "/".join(parts)
        if path in present:
            return path
    return None


def write_out(files: dict[str, bytes], folder: Path) -> None:
    """Write files into a folder; identical ones keep their time stamps. Raises `FolderUnusable`."""
    for path, content in files.items():
        target = folder / path
        try:
            if target.is_file() and target.read_bytes() == content:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        except OSError as error:  # a name of the tree that this file system does not take
            raise FolderUnusable(f"{str(target)[:300]}: {error.strerror}", hint="another workspace") from error
