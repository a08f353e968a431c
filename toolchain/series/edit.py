"""One anchored edit: where it goes, what it inserts, and how it is located in a pristine file."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from ..core.errors import AnchorAmbiguous, AnchorMissing, SeriesError, ToolchainError
from ..core.records import record
from .lexing import Language, language_of, mask
from .place import Span, enclosing_line, find_anchors, find_scopes, line_number

_LONGEST_NAME = 255
"""bytes"""
Position = Literal["before", "after", "replace", "start", "end"]


def require_path(path: str) -> None:
    """Raise `ValueError` for a text that names no file below a folder."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts:
        raise ValueError(f"file {path[:80]!r} leaves the tree")
    if not path.isprintable() or any(len(part.encode()) > _LONGEST_NAME for part in parts):
        raise ValueError(f"file {path[:80]!r}: a name that is too long, or has control characters")


class Probe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pattern to search for in a pristine file, as a fact about the tree."""

    file: str
    pattern: str


class Edit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """An anchored edit, as in the series' YAML.

    `scope` and `anchor` are matched by `toolchain.series.place`; several `scopes` repeat the edit. `before`
    and `after` insert whole lines beside the anchor's line, `start` and `end` at the edges of the scope's body, and
    `replace` replaces the anchor itself. `count` is how often the anchor must be found in each scope; `all`: once
    or more, and the edit is made at each place.
    """

    name: str
    file: str
    position: Position
    insert: str
    anchor: str = ""
    scope: str = ""
    scopes: tuple[str, ...] = ()
    count: int | Literal["all"] = 1
    indent: bool = True
    upstreamed_when: Probe | None = None
    not_if: Probe | None = None

    def __post_init__(self) -> None:
        needs_anchor = self.position in ("before", "after", "replace")
        if needs_anchor != bool(self.anchor):
            raise ValueError(f"position {self.position!r} {'needs an' if needs_anchor else 'takes no'} anchor")
        if not needs_anchor and not (self.scope or self.scopes):
            raise ValueError(f"position {self.position!r} needs a scope")
        if self.scope and self.scopes:
            raise ValueError("either scope or scopes, not both")
        if self.count != "all" and self.count < 1:
            raise ValueError(f"count must be at least 1, not {self.count}")
        require_path(self.file)

    @property
    def all_scopes(self) -> tuple[str, ...]:
        """The scopes that the edit is made in; one empty name means the whole file."""
        return self.scopes or (self.scope,)


@record
class Splice:
    """A located edit: `text` replaces the range from `start` to `end` of the pristine file."""

    start: int
    end: int
    text: str
    edit: str


def locate(edit: Edit, text: str, inserted: str) -> list[Splice]:
    """Where `edit` goes in the pristine `text`, with `inserted` (the rendered insert) indented to fit.

    Raises `AnchorMissing` or `AnchorAmbiguous`; both name the edit, the scope and the nearest candidates.
    """
    language = language_of(edit.file)
    return [
        splice
        for scope in edit.all_scopes
        for span in [_scope_span(edit, scope, text, language)]
        for splice in _splices(edit, scope, span, text, language, inserted)
    ]


def splice_all(text: str, splices: list[Splice]) -> str:
    """The text with every splice made; at the same place in the given order.

    Raises `SeriesError` when two of them overlap.
    """
    parts, position, before = [], 0, ""
    for splice in sorted(splices, key=lambda splice: (splice.start, splice.end)):
        if splice.start < position:
            raise SeriesError(f"edits {before} and {splice.edit} change the same place", hint="make them one edit")
        parts += [text[position : splice.start], splice.text]
        position, before = splice.end, splice.edit
    return "".join(parts) + text[position:]


def _scope_span(edit: Edit, scope: str, text: str, language: Language) -> Span:
    if not scope:
        return Span(start=0, end=len(text))
    spans = find_scopes(text, language, scope)
    if len(spans) == 1:
        return spans[0]
    if spans:
        lines = ", ".join(f"{edit.file}:{line_number(text, span.start)}" for span in spans)
        raise AnchorAmbiguous(
            f"{edit.name}: scope {scope!r} begins {len(spans)} definitions: {lines}", hint="make the scope longer"
        )
    raise AnchorMissing(f"{edit.name}: {edit.file} has no definition that begins {scope!r}")


def _splices(edit: Edit, scope: str, span: Span, text: str, language: Language, inserted: str) -> list[Splice]:
    if edit.position in ("start", "end"):
        return [_edge(edit, span, text, language, inserted)]
    matches = find_anchors(text, language, edit.anchor, span)
    if not matches or edit.count not in ("all", len(matches)):
        raise _count_error(edit, scope, matches, text)
    return [_beside(edit, match, text, inserted) for match in matches]


def _beside(edit: Edit, match: Span, text: str, inserted: str) -> Splice:
    if edit.position == "replace":
        return Splice(start=match.start, end=match.end, text=inserted.rstrip("\n"), edit=edit.name)
    first = text.rfind("\n", 0, match.start) + 1
    indent = re.match(r"[ \t]*", text[first:])
    block = _indented(inserted, indent.group() if indent and edit.indent else "")
    if edit.position == "before":
        return Splice(start=first, end=first, text=block, edit=edit.name)
    last = text.find("\n", match.end)
    if last < 0:
        return Splice(start=len(text), end=len(text), text="\n" + block, edit=edit.name)
    return Splice(start=last + 1, end=last + 1, text=block, edit=edit.name)


def _edge(edit: Edit, span: Span, text: str, language: Language, inserted: str) -> Splice:
    """A splice at the first or last line of a scope's body, indented like the body's own nearest code."""
    code = mask(text, language, strings=True)
    lines = [match for match in re.finditer(r"[^\n]+", code[span.start : span.end]) if match.group().strip()]
    near = (lines[0] if edit.position == "start" else lines[-1]) if lines else None
    indent = ""
    if near is not None and edit.indent:
        found = re.match(r"[ \t]*", near.group())
        indent = found.group() if found else ""
    block = _indented(inserted, indent)
    if edit.position == "start":
        newline = text.find("\n", span.start, span.end)
        if newline < 0:
            return Splice(start=span.start, end=span.start, text="\n" + block, edit=edit.name)
        return Splice(start=newline + 1, end=newline + 1, text=block, edit=edit.name)
    first = text.rfind("\n", 0, span.end) + 1
    if first <= span.start:
        return Splice(start=span.end, end=span.end, text="\n" + block, edit=edit.name)
    if text[first : span.end].strip():
        # the closing bracket is on the body's last line, as in CMake
        return Splice(start=span.end, end=span.end, text="\n" + block.rstrip("\n"), edit=edit.name)
    return Splice(start=first, end=first, text=block, edit=edit.name)


def _indented(block: str, indent: str) -> str:
    lines = block.rstrip("\n").split("\n")
    return "".join(f"{indent}{line}\n" if line and not line.startswith("#") else f"{line}\n" for line in lines)


def _count_error(edit: Edit, scope: str, matches: list[Span], text: str) -> ToolchainError:
    where = f"{scope!r} of {edit.file}" if scope else edit.file
    if matches:
        lines = ", ".join(str(line_number(text, match.start)) for match in matches)
        return AnchorAmbiguous(
            f"{edit.name}: anchor {edit.anchor!r} occurs {len(matches)} times in {where} (lines {lines}),"
            f" not {edit.count}",
            hint="choose a longer anchor or a narrower scope",
        )
    return AnchorMissing(f"{edit.name}: anchor {edit.anchor!r} is not in {where}")


def candidates(edit: Edit, text: str, path: str = "") -> list[str]:
    """Other places in a file that resemble the edit's anchor (or its scope, when it has no anchor).

    Each is `file:line (enclosing definition)`; for a scope that was renamed, the definitions with the nearest names.
    """
    path = path or edit.file
    language = language_of(path)
    whole = Span(start=0, end=len(text))
    if edit.anchor:
        spans = find_anchors(text, language, edit.anchor, whole)
    else:
        spans = [span for scope in edit.all_scopes for span in find_scopes(text, language, scope)]
    found = [f"{path}:{line_number(text, span.start)} ({enclosing_line(text, span.start)})" for span in spans[:5]]
    return found or [f"{path}:{line}" for line in _similar_definitions(edit, text, language)]


def _similar_definitions(edit: Edit, text: str, language: Language) -> list[str]:
    import difflib

    code = mask(text, language, strings=True)
    heads = {
        match.group().strip().rstrip("{").rstrip(): line_number(text, match.start())
        for match in re.finditer(r"^[ \t]*[A-Za-z_][^\n;]*[({][^\n;]*$", code, re.MULTILINE)
    }
    # compare the definition's name, not the `static void` before it
    wanted = [max(words, key=len) for scope in edit.all_scopes if (words := re.findall(r"\w+", scope))]
    near = []
    for name in wanted:
        names = {word: head for head in heads for word in re.findall(r"\w+", head) if len(word) > 5}
        near += [names[word] for word in difflib.get_close_matches(name, list(names), n=2, cutoff=0.75)]
    return [f"{heads[head]} ({head[:80]})" for head in dict.fromkeys(near)]
