"""The kernel names that llama.cpp's Metal host code can request, and which of them a source has.

Each is passed to the function that makes a pipeline: a literal, or a variable that was set to one or was filled by
`snprintf`, whose strings are literals, variables, or names of types.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from ..core.errors import UnknownLayout
from ..core.records import record
from ..series.lexing import mask
from .layout import FOLDER

TYPE, NUMBER = "%type", "%number"
_ASKED = re.compile(r"ggml_metal_library_compile_pipeline\s*\(\s*\w+\s*,\s*([^,]+),")
_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
_TYPE_NUMBER = re.compile(r"^\s*GGML_TYPE_(\w+)\s*=\s*\d+,", re.MULTILINE)
_TYPE_NAME = re.compile(r'\.type_name\s*=\s*"([^"]+)"')


@record
class Pattern:
    """A name that the host builds, in pieces: each has its alternatives, with the placeholders `TYPE` and `NUMBER`."""

    line: str
    """file:line of the call"""
    pieces: tuple[tuple[str, ...], ...]

    def spellings(self) -> Iterator[tuple[str, ...]]:
        """Every choice of alternatives."""
        yield from itertools.product(*self.pieces)


@record
class Unmatched:
    """Mismatches of host code and source."""

    absent: dict[str, str]
    """names that the host requests but the source lacks for all types and numbers; where the host builds them"""
    unasked: tuple[str, ...]
    """kernels that the host never requests"""


def types(tree: Path) -> tuple[str, ...]:
    """The names of ggml's types. Raises `UnknownLayout` for a tree that is not llama.cpp's."""
    path = tree / "ggml/src/ggml.c"
    found = _TYPE_NAME.findall(path.read_text(encoding="utf-8")) if path.is_file() else []
    header = tree / "ggml/include/ggml.h"
    # a table may get some rows from a macro, which builds the name from a number's
    if found and header.is_file():
        found += [name.lower() for name in _TYPE_NUMBER.findall(header.read_text(encoding="utf-8"))]
    if not found:
        raise UnknownLayout(f"{path}: no table of types", hint="name the root of a llama.cpp tree")
    return tuple(dict.fromkeys(found))


def patterns(tree: Path) -> tuple[Pattern, ...]:
    """Every name that the host code of a tree can build. Raises `UnknownLayout` if there is none."""
    folder = tree / FOLDER
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix in (".cpp", ".m", ".mm"):
            code = mask(path.read_text(encoding="utf-8"), "c", strings=False)
            for match in _ASKED.finditer(code):
                # the text before the call, in its function
                begin = max(code.rfind("\n}", 0, match.start()), 0)
                for at, pieces in _names(match.group(1).strip(), code[begin : match.start()]):
                    line = f"{path.relative_to(tree)}:{code.count(chr(10), 0, begin + at) + 1}"
                    found.append(Pattern(line=line, pieces=pieces))
    if not found:
        raise UnknownLayout(f"{folder}: no host code that names kernels", hint="name the root of a llama.cpp tree")
    return tuple(dict.fromkeys(found))


def compare(asked: Collection[Pattern], kernels: Collection[str], known_types: Collection[str]) -> Unmatched:
    """Compare the names that the host can build with the kernels of a source."""
    anything = {TYPE: "(?:" + "|".join(map(re.escape, known_types)) + ")", NUMBER: r"\d+"}

    def form_of(spelling: Collection[str]) -> re.Pattern[str]:
        parts = [part for piece in spelling for part in re.split(f"({TYPE}|{NUMBER})", piece)]
        return re.compile("".join(anything.get(part, re.escape(part)) for part in parts))

    absent: dict[str, str] = {}
    left = set(kernels)
    for pattern in asked:
        for spelling in pattern.spellings():
            form = form_of(spelling)
            matched = {kernel for kernel in kernels if form.fullmatch(kernel)}
            if not matched:
                absent["".join(spelling).replace(TYPE, "<type>").replace(NUMBER, "<n>")] = pattern.line
            left -= matched
    return Unmatched(absent=absent, unasked=tuple(sorted(left)))


def _names(argument: str, before: str) -> Iterator[tuple[int, tuple[tuple[str, ...], ...]]]:
    """The names that an argument can be, each with the offset where it is built in the text `before` the call."""
    variable = re.escape(argument)
    if literal := re.fullmatch(r'"(kernel_[^"]*)"', argument):
        yield len(before), ((literal.group(1),),)
    for match in re.finditer(rf'\b{variable}\s*=\s*"(kernel_[^"]*)"\s*;', before):
        yield match.start(), ((match.group(1),),)
    for match in _filled(argument, before):
        if match.group(1).startswith('"kernel_'):
            yield match.start(), _pieces(match.group(1), before[: match.start()])


def _filled(variable: str, before: str) -> Iterator[re.Match[str]]:
    """Calls of snprintf that write to the variable; the group is their arguments."""
    return re.finditer(rf'\bsnprintf\s*\(\s*{re.escape(variable)}\s*,[^,"]+,\s*("[^;]*)\)\s*;', before)


def _pieces(arguments: str, before: str) -> tuple[tuple[str, ...], ...]:
    form, *given = _split(arguments)
    rest = iter(given)
    pieces: list[tuple[str, ...]] = []
    for piece in re.split(r"(%[a-z]+)", "".join(_LITERAL.findall(form))):
        if piece == "%s":
            pieces.append(_strings(next(rest), before))
        elif piece.startswith("%"):
            next(rest)
            pieces.append((NUMBER,))
        elif piece:
            pieces.append((piece,))
    return tuple(pieces)


def _strings(argument: str, before: str) -> tuple[str, ...]:
    """The possible values of a string."""
    if "ggml_type_name" in argument:
        return (TYPE,)
    if literals := _LITERAL.findall(argument):
        return tuple(dict.fromkeys(literals))
    values: dict[str, None] = {}
    if re.search(rf"\bchar\s+{re.escape(argument.strip())}\s*\[\w*\]\s*=", before):
        values[""] = None  # so that it may be left empty
    for match in _filled(argument.strip(), before):
        parts = _pieces(match.group(1), before[: match.start()])
        values.update(dict.fromkeys(map("".join, itertools.product(*parts))))
    for value in re.findall(rf"\b{re.escape(argument.strip())}\s*=([^;=][^;]*);", before):
        values.update(dict.fromkeys((TYPE,) if "ggml_type_name" in value else _LITERAL.findall(value)))
    # upstream's name in a switch's default branch, which aborts
    values.pop("undefined", None)
    return tuple(values) or (TYPE,)


def _split(text: str) -> list[str]:
    """Arguments, split at commas outside of brackets and strings."""
    parts, depth, start, quoted = [], 0, 0, False
    for at, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif not quoted:
            depth += (character in "([{") - (character in ")]}")
            if character == "," and depth == 0:
                parts.append(text[start:at])
                start = at + 1
    return [*parts, text[start:]]
