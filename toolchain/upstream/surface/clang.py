"""libclang on C headers: headers in, the records of `surface` out.

libclang comes as a wheel without headers of its own; `include/` has the few that C headers include, written in
terms of the compiler's predefined macros, so that they are right for every platform. Any diagnostic of error level
ends the parse: libclang continues after errors and then reports wrong layouts. It is the extra `clang`: import
this module where it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clang import cindex
from clang.cindex import CursorKind, TypeKind

from ...core import temporary
from ...core.errors import HeaderInvalid
from ...host.libclang import index
from .surface import PLATFORMS, Declared, Enum, Enumerator, Field, Macro, Struct

_STUBS = Path(__file__).parent / "include"
_UNIT = "turboquant-unit.c"
_PROBE = "turboquant_value_of_"
_UNNAMED = re.compile(r"\((?:unnamed|anonymous)[^()]* at [^()]*\)")
_KINDS = {
    CursorKind.FUNCTION_DECL: "function",
    CursorKind.VAR_DECL: "variable",
    CursorKind.TYPEDEF_DECL: "typedef",
}
_INTEGER, _FLOAT, _STRING = 1, 2, 4


class Parsed:
    """What the headers of one tree declare, in the order of their declaration."""

    def __init__(self) -> None:
        self.declared: dict[tuple[str, str], Declared] = {}
        self.enums: dict[str, Enum] = {}
        self.structs: dict[str, Struct] = {}
        self.macros: dict[str, Macro] = {}


def parse(files: Mapping[str, bytes], headers: Sequence[str], folders: Sequence[str], platform: str) -> Parsed:
    """Parse `headers`, which are among `files` (path in the tree -> content), with `folders` as include path.

    Raises `HeaderInvalid` with file, line and the compiler's message.
    """
    with temporary.folder("api") as made:
        root = made.resolve()
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        arguments = ["-x", "c", "-std=gnu11", "-target", PLATFORMS[platform], "-nostdinc", "-ferror-limit=0"]
        arguments += ["-isystem", str(_STUBS), *(word for folder in folders for word in ("-I", str(root / folder)))]
        includes = "".join(f'#include "{root / header}"\n' for header in headers)
        first = _translate(includes, arguments, cindex.TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD)
        _refuse_errors(first, root)
        parsed = Parsed()
        names = []
        for cursor in first.cursor.get_children():
            header = _header(cursor, root)
            if header is None:
                continue
            if cursor.kind == CursorKind.MACRO_DEFINITION:
                names.append((cursor.spelling, header))
            else:
                _take(cursor, header, parsed)
        _evaluate(names, includes, arguments, parsed)
    return parsed


def _translate(source: str, arguments: list[str], options: int) -> Any:
    try:
        return index().parse(_UNIT, args=arguments, unsaved_files=[(_UNIT, source)], options=options)
    except cindex.TranslationUnitLoadError as error:
        raise HeaderInvalid(f"libclang could not parse anything: {error}") from error


def _refuse_errors(unit: Any, root: Path) -> None:
    errors = [found for found in unit.diagnostics if found.severity >= cindex.Diagnostic.Error]
    if not errors:
        return
    lines = []
    for found in errors[:5]:
        file = found.location.file
        name = str(file).removeprefix(f"{root}/") if file else "the command line"
        lines.append(f"{name}:{found.location.line}: {found.spelling}")
    more = f"\n  and {len(errors) - 5} more" if len(errors) > 5 else ""
    raise HeaderInvalid(
        "the headers do not parse: " + "\n  ".join(lines) + more,
        hint=f"is the tree complete? a missing header of the C library belongs into {_STUBS}",
    )


def _header(cursor: Any, root: Path) -> str | None:
    """Path in the tree of a cursor's header; None for the unit itself and our stubs."""
    file = cursor.location.file
    if file is None:
        return None
    name = str(file)
    return name.removeprefix(f"{root}/") if name.startswith(f"{root}/") else None


def _take(cursor: Any, header: str, parsed: Parsed) -> None:
    if cursor.kind in _KINDS:
        if cursor.storage_class == cindex.StorageClass.STATIC:
            return
        kind: Any = _KINDS[cursor.kind]
        found = cursor.underlying_typedef_type if kind == "typedef" else cursor.type
        old = parsed.declared.get((kind, cursor.spelling))
        parsed.declared[kind, cursor.spelling] = Declared(
            name=cursor.spelling,
            kind=kind,
            type=_spelled(found),
            header=header,
            deprecated=_deprecated(cursor) or (old is not None and old.deprecated),
        )
    elif cursor.kind == CursorKind.ENUM_DECL and cursor.is_definition():
        values = tuple(
            Enumerator(name=value.spelling, value=value.enum_value, deprecated=_deprecated(value))
            for value in cursor.get_children()
            if value.kind == CursorKind.ENUM_CONSTANT_DECL
        )
        named = _spelled(cursor.type).removeprefix("enum ")
        name = values[0].name if "(unnamed" in named else named
        parsed.enums[name] = Enum(name=name, type=_spelled(cursor.enum_type), header=header, values=values)
    elif cursor.kind in (CursorKind.STRUCT_DECL, CursorKind.UNION_DECL):
        kind = "struct" if cursor.kind == CursorKind.STRUCT_DECL else "union"
        name = _spelled(cursor.type).removeprefix(f"{kind} ")
        known = parsed.structs.get(name)
        if "(unnamed" in name or (known is not None and known.complete):
            return
        if not cursor.is_definition():
            parsed.structs[name] = Struct(name=name, kind=kind, header=header, complete=False)
            return
        parsed.structs[name] = Struct(
            name=name,
            kind=kind,
            header=header,
            complete=True,
            size=cursor.type.get_size(),
            align=cursor.type.get_align(),
            fields=tuple(_fields(cursor.type, "", 0)),
        )


def _fields(record: Any, path: str, base: int) -> Iterator[Field]:
    """Members of a record, with the members of nested records in place of these."""
    for field in record.get_fields():
        offset = base + field.get_field_offsetof()
        kind = field.type.get_canonical()
        # an unnamed member's members are named like those of the outer record
        unnamed = not field.spelling or "(" in field.spelling
        name = path if unnamed else path + field.spelling
        if kind.kind == TypeKind.RECORD:
            yield from _fields(kind, name if unnamed else f"{name}.", offset)
            continue
        width = field.get_bitfield_width() if field.is_bitfield() else 8 * max(kind.get_size(), 0)
        yield Field(name=name, type=_spelled(kind), offset=offset, bits=width, bitfield=field.is_bitfield())


def _spelled(kind: Any) -> str:
    """A type's canonical name, without the place of an unnamed one."""
    return _UNNAMED.sub("(unnamed)", kind.get_canonical().spelling)


def _deprecated(cursor: Any) -> bool:
    return bool(cursor.availability == cindex.AvailabilityKind.DEPRECATED)


def _evaluate(names: list[tuple[str, str]], includes: str, arguments: list[str], parsed: Parsed) -> None:
    """Constants among the macros: each initialises a variable, which fails for other macros."""
    probes = "".join(f"static const __auto_type {_PROBE}{name} = {name};\n" for name, _ in names)
    unit = _translate(includes + probes, arguments, cindex.TranslationUnit.PARSE_NONE)
    headers = dict(names)
    for cursor in unit.cursor.get_children():
        if cursor.kind != CursorKind.VAR_DECL or not cursor.spelling.startswith(_PROBE):
            continue
        name = cursor.spelling.removeprefix(_PROBE)
        value = _value(cursor)
        if value is not None:
            parsed.macros[name] = Macro(name=name, value=value, header=headers[name])


def _value(cursor: Any) -> int | float | str | None:
    library = cindex.conf.lib
    result = library.clang_Cursor_Evaluate(cursor)
    if not result:
        return None
    try:
        kind = library.clang_EvalResult_getKind(result)
        if kind == _INTEGER:
            unsigned = library.clang_EvalResult_isUnsignedInt(result)
            read = library.clang_EvalResult_getAsUnsigned if unsigned else library.clang_EvalResult_getAsLongLong
            return int(read(result))
        if kind == _FLOAT:
            return float(library.clang_EvalResult_getAsDouble(result))
        if kind == _STRING:
            return bytes(library.clang_EvalResult_getAsStr(result)).decode(errors="replace")
        return None
    finally:
        library.clang_EvalResult_dispose(result)
