"""What CMake embeds for a kernel file: it has no files to include where it is compiled, so all of it is one text.

A `CMakeLists.txt` puts the shared files that a kernel file names before it, then a few `sed` commands take the includes
out and put two headers in at their places. Both are read from it, not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..core.errors import MetalLayoutUnknown
from ..core.records import record
from ..series.lexing import mask

_LISTED = re.compile(r"\bset\s*\(\s*METALLIB_KERNEL_SOURCES\s+([^)]*)\)")
_LIBRARIES = re.compile(r"^#\s*define\s+GGML_METAL_LIBS\b((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
_LIBRARY = re.compile(r"\bX\s*\(\s*\w+\s*,\s*(\w+)\s*\)")
_VARIABLE = re.compile(r'\bset\s*\(\s*(\w+)\s+"?\$\{CMAKE_CURRENT_SOURCE_DIR\}/([\w./-]+)"?\s*\)')
_BEFORE = re.compile(r"\b(set|list)\s*\(\s*(APPEND\s+)?HEADERS_FOR_SRC\s+([^)]*)\)")
_STEP = re.compile(r'-e\s+"/((?:[^"\\/]|\\.)+)/(?:(d)|r\s+\$\{(\w+)\})"')
_NAME = re.compile(r"\$\{(\w+)\}")


@record
class SedStep:
    """What `sed` does to a line that contains `words`: it goes, and a `file` comes, if there is one."""

    words: str
    file: str = ""


@record
class Recipe:
    """What a tree's build and host code say of kernel libraries. Paths are relative to ggml-metal/."""

    listed: tuple[str, ...]
    """kernel files that CMake makes libraries of"""
    asked: tuple[str, ...]
    """libraries that the host code loads"""
    always: tuple[str, ...]
    """files that stand before every kernel file"""
    named: tuple[str, ...]
    """those that stand before a kernel file that includes them"""
    steps: tuple[SedStep, ...]
    """empty where CMake does not say how it embeds, in words known here"""

    @property
    def shared(self) -> tuple[str, ...]:
        return (*self.always, *self.named)


def recipe(build: str, host: str) -> Recipe:
    """Read a `CMakeLists.txt` and a `ggml-metal-device.m`. Raises `MetalLayoutUnknown` where either has no list."""
    code = mask(build, "cmake", strings=False)
    listed = _LISTED.search(code)
    if not listed:
        raise MetalLayoutUnknown(
            "CMakeLists.txt of ggml-metal has no METALLIB_KERNEL_SOURCES, by which it would list the kernel files",
            hint="a newer layout has to be taught to toolchain/metal/embedding.py",
        )
    libraries = _LIBRARIES.search(mask(host, "c", strings=False))
    if not libraries:
        raise MetalLayoutUnknown(
            "ggml-metal-device.m has no GGML_METAL_LIBS, by which it would list the kernel libraries",
            hint="a newer layout has to be taught to toolchain/metal/embedding.py",
        )
    variables = dict(_VARIABLE.findall(code))
    always: list[str] = []
    named: list[str] = []
    for command, append, names in _BEFORE.findall(code):
        which = named if command == "list" and append else always
        which += [variables[name] for name in _NAME.findall(names) if name in variables]
    return Recipe(
        listed=tuple(re.findall(r'[^\s"]+', listed.group(1))),
        asked=tuple(_LIBRARY.findall(libraries.group(1))),
        always=tuple(always),
        named=tuple(named),
        steps=tuple(_steps(code, variables)) if always else (),
    )


def embed(folder: Path, path: Path, found: Recipe) -> str:
    """The text that is embedded for the kernel file at `path`, in a ggml-metal/ at `folder`. Lines of the preprocessor
    name the files that it is made of."""
    text = path.read_text(encoding="utf-8")
    before = [*found.always, *(name for name in found.named if f'#include "{Path(name).name}"' in text)]
    lines = [line for name in before for line in _lines(folder / name)] + list(_lines(path))
    for step in found.steps:
        insert = list(_lines((folder / step.file).resolve())) if step.file else []
        lines = [new for line in lines for new in (insert if step.words in line[0] else (line,))]
    return _written(lines)


def _steps(code: str, variables: dict[str, str]) -> Iterator[SedStep]:
    """`sed -e "/words/r file" -e "/words/d"` is one step: the file instead of the line."""
    files: dict[str, str] = {}
    for words, delete, variable in _STEP.findall(code):
        plain = re.sub(r"\\(.)", r"\1", words)
        if not delete:
            files[plain] = variables.get(variable, "")
        else:
            yield SedStep(words=plain, file=files.pop(plain, ""))


def _lines(path: Path) -> Iterator[tuple[str, Path, int]]:
    if not path.is_file():
        raise MetalLayoutUnknown(f"{path}: not there, and CMakeLists.txt embeds it", hint="is the tree complete?")
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        yield line, path, number


def _written(lines: Iterable[tuple[str, Path, int]]) -> str:
    out, expected = [], None
    for line, path, number in lines:
        if (path, number) != expected:
            name = str(path).replace("\\", "\\\\").replace('"', '\\"')
            out.append(f'#line {number} "{name}"')
        out.append(line)
        expected = path, number + 1
    return "\n".join(out) + "\n"
