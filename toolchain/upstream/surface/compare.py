"""Changes between two snapshots, and their effect on users."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from ...core.records import record
from .surface import Declared, Enum, Enumerator, Field, Snapshot, Struct
from .usage import IN_CODE, Need, Usage

Kind = Literal["function", "variable", "typedef", "enum", "enumerator", "struct", "union", "macro"]
Class = Literal["added", "removed", "signature", "value", "sentinel", "layout", "deprecated"]
Effect = Literal["additive", "unused", "recompiled", "breaking"]
Verdict = Literal["identical", "additive", "changed but unused", "breaking"]

EXIT_BASE = 96
"""exit codes of a comparison with changes: this plus abidiff's bits"""
EXIT_CHANGED, EXIT_INCOMPATIBLE, EXIT_UNUSED = 4, 8, 16
"""abidiff's bits for a change and an incompatible one, and ours for an incompatible one that Ollama does not use"""

_ADDITIVE = ("added", "deprecated", "sentinel")
_SENTINEL = re.compile(r"(?:^|_)(?:COUNT|MAX|LAST|END|NUM|N)(?:_|$)")
_THROUGH = " through "
_WORD = re.compile(r"\w+")


@record
class SurfaceChange:
    """One difference. `effect` is what it means: see `docs/explanation/c-surface.md`."""

    name: str
    kind: Kind
    change: Class
    detail: str
    header: str
    effect: Effect
    used: str = ""
    """where Ollama uses it, directly or through a type; empty when it does not"""


@record
class ApiDiff:
    """The comparison of two trees."""

    old: str
    new: str
    platform: str
    ollama: str
    """the Ollama whose usage was examined; empty: everything counts as used, by compiled programs"""
    changes: tuple[SurfaceChange, ...]
    server: tuple[Need, ...]
    """what Ollama passes to llama-server and reads from it, and whether both trees have it"""
    names: tuple[Need, ...]
    """what Ollama's code names of llama.cpp, and whether both trees declare it, or mention it in their sources"""
    later: str
    """a second Ollama, that of the new tree; empty: there is none"""
    verdict: Verdict
    exit_code: int


def diff(
    old: Snapshot,
    new: Snapshot,
    usage: Usage | None = None,
    later: Usage | None = None,
    needs: Sequence[Need] = (),
) -> ApiDiff:
    """Compare two snapshots of the same platform.

    Without `usage` everything counts as used by compiled programs. `later` is what the Ollama of the new tree uses:
    what differs from `usage` is a change. `needs` comes from `comparison.check`; what the old tree had and the new one
    lacks is breaking.
    """
    binding = _Binding(usage, (old, new))
    found = [*_declared(old, new), *_structs(old, new), *_enums(old, new), *_macros(old, new)]
    changes = tuple(sorted((binding.judged(one) for one in found), key=lambda one: (one.change, one.kind, one.name)))
    lost = any(use.in_old and not use.in_new for use in needs)
    differs = later is not None and any(not (use.where and use.later) for use in needs)
    effects = {change.effect for change in changes}
    incompatible = lost or "breaking" in effects
    unused = bool(effects & {"unused", "recompiled"})
    verdict: Verdict = "breaking" if incompatible else "changed but unused" if unused else "additive"
    if not changes and not lost and not differs:
        verdict = "identical"
    bits = EXIT_BASE | EXIT_CHANGED | EXIT_INCOMPATIBLE * incompatible | EXIT_UNUSED * unused
    return ApiDiff(
        old=old.describe,
        new=new.describe,
        platform=old.platform,
        ollama=usage.describe if usage else "",
        changes=changes,
        server=tuple(use for use in needs if use.kind not in IN_CODE),
        names=tuple(use for use in needs if use.kind in IN_CODE),
        later=later.describe if later else "",
        verdict=verdict,
        exit_code=0 if verdict == "identical" else bits,
    )


def told_apart(found: ApiDiff) -> tuple[Need, ...]:
    """What Ollama uses and one of the trees lacks, without the names that are among the changes of the headers."""
    shown = {change.name for change in found.changes}
    return tuple(use for use in (*found.names, *found.server) if use.in_old != use.in_new and use.text not in shown)


class _Binding:
    """What Ollama uses, with all types that this depends on."""

    def __init__(self, usage: Usage | None, surfaces: Sequence[Snapshot]) -> None:
        self._all = usage is None
        functions = {one.name for surface in surfaces for one in surface.declared if one.kind != "typedef"}
        symbols = usage.symbols if usage else ()
        loaded = [(use.text, use.where) for use in symbols if use.kind == "loaded" and use.text in functions]
        compiled = [(use.text, use.where) for use in symbols if use.kind == "compiled"]
        self._loaded = _closure(loaded, surfaces)
        self._compiled = _closure(compiled, surfaces)

    def judged(self, change: SurfaceChange) -> SurfaceChange:
        """The change with its effect, and where it is used."""
        loaded, compiled = self._loaded.get(change.name, ""), self._compiled.get(change.name, "")
        used = loaded or compiled
        effect: Effect
        if change.change in _ADDITIVE or change.effect == "additive":
            effect = "additive"
        elif loaded or self._all:
            effect = "breaking"
        elif not compiled:
            effect = "unused"
        else:
            effect = "recompiled" if _found_again(change, compiled) else "breaking"
        return SurfaceChange(
            name=change.name,
            kind=change.kind,
            change=change.change,
            detail=change.detail,
            header=change.header,
            effect=effect,
            used=used,
        )


def _found_again(change: SurfaceChange, where: str) -> bool:
    """Whether code that is recompiled with the new headers works as before.

    A member that only moved is found at its new place; an enumerator that the code does not name does not matter.
    """
    return change.effect == "recompiled" or (change.kind == "enumerator" and _THROUGH in where)


def _closure(names: Sequence[tuple[str, str]], surfaces: Sequence[Snapshot]) -> dict[str, str]:
    """Used names and everything that their types are made of -> where."""
    parts: dict[str, set[str]] = {}
    for surface in surfaces:
        for one in surface.declared:
            parts.setdefault(one.name, set()).update(_WORD.findall(one.type))
        for struct in surface.structs:
            parts.setdefault(struct.name, set()).update(word for f in struct.fields for word in _WORD.findall(f.type))
        for enum in surface.enums:
            parts.setdefault(enum.name, set()).update(value.name for value in enum.values)
            for value in enum.values:
                parts.setdefault(value.name, set())
        for macro in surface.macros:
            parts.setdefault(macro.name, set())
    found: dict[str, str] = {}
    todo = [(name, where) for name, where in names if name in parts]
    while todo:
        name, where = todo.pop(0)
        if name in found:
            continue
        found[name] = where
        through = where if _THROUGH in where else f"{where}{_THROUGH}{name}"
        todo += [(part, through) for part in sorted(parts[name]) if part in parts and part not in found]
    return found


def _made(
    name: str, kind: Kind, change: Class, header: str, detail: str = "", effect: Effect = "breaking"
) -> SurfaceChange:
    return SurfaceChange(name=name, kind=kind, change=change, detail=detail, header=header, effect=effect)


def _declared(old: Snapshot, new: Snapshot) -> Iterator[SurfaceChange]:
    before = {(one.kind, one.name): one for one in old.declared}
    after = {(one.kind, one.name): one for one in new.declared}
    for key in before.keys() | after.keys():
        was, now = before.get(key), after.get(key)
        one = now or was
        assert one is not None
        if was is None:
            yield _made(one.name, one.kind, "added", one.header, one.type)
        elif now is None:
            yield _made(one.name, one.kind, "removed", one.header, was.type)
        else:
            yield from _redeclared(was, now)


def _redeclared(was: Declared, now: Declared) -> Iterator[SurfaceChange]:
    if was.type != now.type:
        yield _made(now.name, now.kind, "signature", now.header, f"{was.type} -> {now.type}")
    if now.deprecated and not was.deprecated:
        yield _made(now.name, now.kind, "deprecated", now.header)


def _structs(old: Snapshot, new: Snapshot) -> Iterator[SurfaceChange]:
    before = {one.name: one for one in old.structs}
    after = {one.name: one for one in new.structs}
    for name in before.keys() | after.keys():
        was, now = before.get(name), after.get(name)
        if was is None and now is not None:
            yield _made(name, now.kind, "added", now.header, f"{now.size} bytes" if now.complete else "incomplete")
        elif now is None and was is not None:
            yield _made(name, was.kind, "removed", was.header)
        elif was and now and was.complete and not now.complete:
            yield _made(name, now.kind, "layout", now.header, f"{was.size} bytes -> incomplete")
        elif was and now and was.complete and _shape(was) != _shape(now):
            yield _laid_out(was, now)


def _shape(struct: Struct) -> tuple[object, ...]:
    return struct.kind, struct.size, struct.align, struct.fields


def _laid_out(was: Struct, now: Struct) -> SurfaceChange:
    before: Mapping[str, Field] = {field.name: field for field in was.fields}
    after: Mapping[str, Field] = {field.name: field for field in now.fields}
    gone = [name for name in before if name not in after]
    fresh = [name for name in after if name not in before]
    kept = [name for name in before if name in after]
    retyped = [name for name in kept if (before[name].type, before[name].bits) != (after[name].type, after[name].bits)]
    moved = [name for name in kept if name not in retyped and before[name].offset != after[name].offset]
    words = []
    if was.size != now.size:
        words.append(f"{was.size} -> {now.size} bytes")
    if was.align != now.align:
        words.append(f"alignment {was.align} -> {now.align}")
    words += [f"without {name}" for name in gone]
    words += [f"{name}: {_typed(before[name])} -> {_typed(after[name])}" for name in retyped]
    words += [f"with {name} at {_place(after[name])}" for name in fresh]
    words += [f"{name} from {_place(before[name])} to {_place(after[name])}" for name in moved]
    effect: Effect = "breaking" if gone or retyped or was.kind != now.kind else "recompiled"
    if effect == "recompiled" and not moved and (was.size, was.align) == (now.size, now.align):
        effect = "additive"  # the new members are in former padding
    return _made(now.name, now.kind, "layout", now.header, ", ".join(words), effect)


def _typed(field: Field) -> str:
    return f"{field.type}:{field.bits}" if field.bitfield else field.type


def _place(field: Field) -> str:
    byte, bit = divmod(field.offset, 8)
    return f"{byte}.{bit}" if field.bitfield else f"{byte}"


def _enums(old: Snapshot, new: Snapshot) -> Iterator[SurfaceChange]:
    before, after = {one.name: one for one in old.enums}, {one.name: one for one in new.enums}
    for name in before.keys() | after.keys():
        was, now = before.get(name), after.get(name)
        if was is None and now is not None:
            yield _made(name, "enum", "added", now.header, f"{len(now.values)} values")
        elif now is None and was is not None:
            yield _made(name, "enum", "removed", was.header)
        elif was and now and was.type != now.type:
            yield _made(name, "enum", "layout", now.header, f"{was.type} -> {now.type}")
    # enumerators share one scope, so one that moved to another enum is still the same name
    values_before, values_after = _values(old), _values(new)
    numbers = {(enum.name, value.value): value.name for enum, value in values_before.values()}
    for name in values_before.keys() | values_after.keys():
        if name not in values_before:
            enum, value = values_after[name]
            held = numbers.get((enum.name, value.value), "")
            taken = f", the number of {held}" if held and held not in values_after else ""
            yield _made(name, "enumerator", "added", enum.header, f"{enum.name}: {value.value}{taken}")
        elif name not in values_after:
            enum, value = values_before[name]
            yield _made(name, "enumerator", "removed", enum.header, f"{enum.name}: {value.value}")
        else:
            yield from _revalued(*values_before[name], *values_after[name])


def _values(snapshot: Snapshot) -> dict[str, tuple[Enum, Enumerator]]:
    return {value.name: (enum, value) for enum in snapshot.enums for value in enum.values}


def _revalued(enum: Enum, was: Enumerator, later: Enum, now: Enumerator) -> Iterator[SurfaceChange]:
    if was.value != now.value:
        sentinel = _is_sentinel(enum, was) and _is_sentinel(later, now)
        detail = f"{later.name}: {was.value} -> {now.value}"
        yield _made(now.name, "enumerator", "sentinel" if sentinel else "value", later.header, detail)
    if now.deprecated and not was.deprecated:
        yield _made(now.name, "enumerator", "deprecated", later.header)


def _is_sentinel(enum: Enum, value: Enumerator) -> bool:
    """Whether a value is only a count: the last one, one more than the largest, with such a name."""
    others = [one.value for one in enum.values if one.name != value.name]
    return (
        enum.values[-1] == value and value.value == max(others, default=-1) + 1 and bool(_SENTINEL.search(value.name))
    )


def _macros(old: Snapshot, new: Snapshot) -> Iterator[SurfaceChange]:
    before, after = {one.name: one for one in old.macros}, {one.name: one for one in new.macros}
    for name in before.keys() | after.keys():
        was, now = before.get(name), after.get(name)
        if was is None and now is not None:
            yield _made(name, "macro", "added", now.header, f"{now.value!r}")
        elif now is None and was is not None:
            yield _made(name, "macro", "removed", was.header, f"{was.value!r}")
        elif was and now and was.value != now.value:
            yield _made(name, "macro", "value", now.header, f"{was.value!r} -> {now.value!r}")
