"""The symbols of a tree that our sources use, found by libclang in every added or edited file, with the series applied.

This needs the headers of the C and C++ libraries, and so a compiler, and libclang (the extra `clang`). Checking a
contract needs neither, so import this module only to record one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from clang import cindex
from clang.cindex import CursorKind

from ..core import temporary
from ..core.errors import SeriesError
from ..core.process import ask, capture
from ..core.records import record
from ..host.libclang import index
from ..metal.drivers import drivers
from ..series.patched import INCLUDED, Patched, Read, included, resolve, write_out
from ..series.symbols import Form, Kind
from .declared import Declarations, declarations
from .flags import CPP, defined

SOURCES = (".c", ".cpp", ".m")
_KINDS: dict[Any, Kind] = {
    CursorKind.FUNCTION_DECL: "function",
    CursorKind.CXX_METHOD: "function",
    CursorKind.CONSTRUCTOR: "function",
    CursorKind.FUNCTION_TEMPLATE: "function",
    CursorKind.FIELD_DECL: "field",
    CursorKind.ENUM_CONSTANT_DECL: "enumerator",
    CursorKind.STRUCT_DECL: "type",
    CursorKind.CLASS_DECL: "type",
    CursorKind.UNION_DECL: "type",
    CursorKind.ENUM_DECL: "type",
    CursorKind.TYPEDEF_DECL: "type",
    CursorKind.TYPE_ALIAS_DECL: "type",
    CursorKind.CLASS_TEMPLATE: "type",
    CursorKind.VAR_DECL: "variable",
    CursorKind.PARM_DECL: "local",
    CursorKind.MACRO_DEFINITION: "macro",
}
_TYPES = (CursorKind.STRUCT_DECL, CursorKind.CLASS_DECL, CursorKind.UNION_DECL, CursorKind.CLASS_TEMPLATE)
_FUNCTIONS = (CursorKind.FUNCTION_DECL, CursorKind.CXX_METHOD, CursorKind.CONSTRUCTOR, CursorKind.FUNCTION_TEMPLATE)
_OPTIONS = cindex.TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD
_GENERATED = ".generated"
_QUOTED = re.compile(rb'^\s*#\s*include\s+"([^"\n]+)"', re.MULTILINE)
_IMPORTED = re.compile(r'^\s*#\s*(?:import|include)\s+"', re.ASCII)
_MISSING = re.compile(r"'([\w./-]+)' file not found")


@record
class Used:
    """A symbol of upstream that our lines refer to, and where it is declared in the patched tree."""

    kind: Kind
    name: str
    file: str
    line: int


def find(patched: Patched, read: Read, present: frozenset[str]) -> dict[tuple[Kind, str], tuple[Form, ...]]:
    """Every symbol that our lines use, with its forms on this tree.

    Raises `SeriesError` when our lines do not compile on the tree, or a declaration cannot be parsed.
    """
    roots = [path for path in patched.own if path.endswith(SOURCES)]
    present |= frozenset(patched.files)
    files = included(read, present, [path for path in patched.own if path.endswith((*SOURCES, ".h"))])
    words = patched.words()
    found: dict[tuple[Kind, str], dict[Form, None]] = {}
    with temporary.folder("contract") as made:
        root = made.resolve()
        write_out(files, root)
        write_out({f"{_GENERATED}/{name}": b"" for name in _absent(files, present)}, root)
        for path in roots:
            for used in dict.fromkeys(_uses(root, path, patched)):
                if used.name.rpartition("::")[2] in words:
                    form = _form(used, declarations(files[used.file].decode()))
                    if form:
                        found.setdefault((used.kind, used.name), {})[Form(form=form, file=used.file)] = None
    return {key: tuple(forms) for key, forms in found.items()}


def _absent(files: Mapping[str, bytes], present: frozenset[str]) -> set[str]:
    """Names that files include in quotes and that the tree lacks: headers that upstream's build generates."""
    quoted = {(match[1].decode(), path) for path, text in files.items() for match in _QUOTED.finditer(text)}
    return {name for name, path in quoted if ".." not in name and resolve(name, path, present) is None}


def _form(used: Used, declared: Declarations) -> str:
    if used.kind == "local":
        function, _, name = used.name.partition("()::")
        there = declared.local(function, name)
        if there:
            return min(there, key=lambda one: abs(one.line - used.line)).form
        return f"by {declared.statement_at(used.line)}"
    there = [one for one in declared.of(used.kind, used.name) if one.line <= used.line]
    if there:
        return ("static " if there[-1].static else "") + there[-1].form
    if used.kind == "type" or (used.kind == "function" and _is_constructor(used.name)):
        # a type that is only named
        return ""
    raise SeriesError(f"{used.file}:{used.line}: the declaration of {used.name} ({used.kind}) cannot be parsed")


def _is_constructor(name: str) -> bool:
    """Whether the name is a constructor, which may be implicit."""
    outer, _, inner = name.rpartition("::")
    return outer.rpartition("::")[2] == inner


def _uses(root: Path, path: str, patched: Patched) -> Iterator[Used]:
    unit = _parse(root, path, patched)
    for cursor in unit.cursor.get_children():
        # nearly all are the libraries', and naming their file takes longer than asking whose they are
        if not cursor.location.is_in_system_header:
            yield from _within(cursor, root, patched)


def _within(cursor: Any, root: Path, patched: Patched) -> Iterator[Used]:
    extent = cursor.extent
    place = _place(extent.start, root)
    if place is None or place[0] not in patched.own:
        return
    path, first = place
    last = extent.end.line
    if not any(first <= end and last >= begin for begin, end in patched.own[path]):
        return
    at = _place(cursor.location, root)
    if at and patched.is_own(*at):
        used = _used(cursor, root, patched)
        if used:
            yield used
    for child in cursor.get_children():
        yield from _within(child, root, patched)


def _used(cursor: Any, root: Path, patched: Patched) -> Used | None:
    target = cursor.referenced
    if target is None or target == cursor or target.kind not in _KINDS:
        return None
    kind = _KINDS[target.kind]
    if kind == "type":
        target = target.get_definition() or target.canonical
    elif kind not in ("macro", "local"):
        target = target.canonical
    at = _place(target.location, root)
    if at is None or patched.is_own(*at):
        return None
    name = target.spelling
    if kind in ("variable", "local"):
        function = _function(target)
        if function:
            kind, name = "local", f"{function}()::{name}"
        elif kind == "local":
            return None
        elif target.semantic_parent is not None and target.semantic_parent.kind in _TYPES:
            kind, name = "field", _qualified(target)
    elif kind != "macro":
        name = _qualified(target)
    return Used(kind=kind, name=name, file=at[0], line=at[1])


def _qualified(cursor: Any) -> str:
    """A name qualified with its enclosing types, without namespaces and unnamed types."""
    names = [re.sub(r"<.*", "", cursor.spelling)]
    parent = cursor.semantic_parent
    while parent is not None and parent.kind != CursorKind.TRANSLATION_UNIT:
        scoped = parent.kind == CursorKind.ENUM_DECL and parent.is_scoped_enum()
        if (parent.kind in _TYPES or scoped) and parent.spelling and "(" not in parent.spelling:
            names.append(parent.spelling)
        parent = parent.semantic_parent
    return "::".join(reversed(names))


def _function(cursor: Any) -> str:
    parent = cursor.semantic_parent
    while parent is not None and parent.kind != CursorKind.TRANSLATION_UNIT:
        if parent.kind in _FUNCTIONS and parent.spelling != "operator()":
            return _qualified(parent)
        parent = parent.semantic_parent
    return ""


def _place(location: Any, root: Path) -> tuple[str, int] | None:
    """Path in the tree, and line; None outside of it."""
    file = location.file
    if file is None:
        return None
    name = str(file.name)
    if not name.startswith(f"{root}/"):
        return None
    return name.removeprefix(f"{root}/").removesuffix(".parsed.c"), location.line


def _parse(root: Path, path: str, patched: Patched) -> Any:
    source = root / path
    if path.endswith(".m"):
        source = root / f"{path}.parsed.c"
        source.write_text(_plain(patched.files[path].decode(), patched.own[path]), encoding="utf-8")
    language = ["-x", "c++", *CPP] if path.endswith(".cpp") else ["-x", "c", "-std=gnu11"]
    folders = [word for folder in INCLUDED for word in ("-I", str(root / folder))]
    system = [word for folder in _system() for word in ("-isystem", folder)]
    system += ["-idirafter", str(root / _GENERATED)]
    words = [*language, "-nostdinc", "-nostdinc++", "-w", "-ferror-limit=0", *defined(patched), *folders, *system]
    unit = index().parse(str(source), args=words, options=_OPTIONS)
    while _stand_in(unit, root, patched):
        unit = index().parse(str(source), args=words, options=_OPTIONS)
    for found in unit.diagnostics:
        at = _place(found.location, root)
        fatal = found.severity >= cindex.Diagnostic.Fatal and "too many errors" not in found.spelling
        ours = at is not None and patched.is_own(*at)
        if found.severity >= cindex.Diagnostic.Error and (ours or fatal):
            where = f"{at[0]}:{at[1]}" if at else path
            raise SeriesError(f"{where}: our sources do not compile on this tree: {found.spelling}")
    return unit


def _stand_in(unit: Any, root: Path, patched: Patched) -> bool:
    """Write an empty file for a header of the tree that only upstream's build makes; whether one was missing.

    What upstream's lines use of it stays unknown, which is no error; what ours use of it is.
    """
    for found in unit.diagnostics:
        at, missing = _place(found.location, root), _MISSING.match(found.spelling)
        if at is None or missing is None or patched.is_own(*at):
            continue
        target = ((root / at[0]).parent / missing[1]).resolve()
        line = (root / at[0]).read_text(encoding="utf-8").split("\n")[at[1] - 1]
        if _IMPORTED.match(line) and target.is_relative_to(root) and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
            return True
    return False


def _plain(text: str, own: tuple[tuple[int, int], ...]) -> str:
    """An Objective-C file reduced to its headers and the C functions with our lines; line numbers stay."""
    declared = declarations(text)
    kept = [
        (declared.line(body.start), declared.line(body.end))
        for bodies in declared.bodies.values()
        for body in bodies
        if any(declared.line(body.start) <= last and declared.line(body.end) >= first for first, last in own)
    ]
    lines = text.split("\n")
    return "\n".join(
        line if _IMPORTED.match(line) or any(first <= number <= last for first, last in kept) else ""
        for number, line in enumerate(lines, start=1)
    )


@cache
def _system() -> tuple[str, ...]:
    """The folders where this machine's compiler finds the headers of the C and C++ libraries."""
    words = [*drivers().native, "-E", "-v", "-x", "c++", "/dev/null"]
    _, _, listed = capture(words, timeout=120).error_text.partition("#include <...> search starts here:")
    found = [line.strip() for line in listed.partition("End of search list.")[0].splitlines() if line.strip()]
    # zig's own headers lack a few that every other compiler has
    found.append(ask(["gcc", "-print-file-name=include"]).strip())
    return tuple(str(Path(folder)) for folder in found if folder and Path(folder).is_dir())
