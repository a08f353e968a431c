"""Finding a place in a source file by meaning: an enclosing scope, and an anchor inside it.

A scope is named by how its definition begins (`enum ggml_type`, `func PredictServerVRAM`, `add_library(ggml-base`)
and is the bracketed body that follows. An anchor is a short piece of code. Both ignore white space
between words, and match at word boundaries only, never inside comments.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ..core.records import record
from .lexing import Language, mask

_CLOSER = {"{": "}", "(": ")", "[": "]"}


@record
class Span:
    """Half-open range of offsets in a text."""

    start: int
    end: int


@lru_cache(maxsize=512)
def needle(words: str, language: Language = "text") -> re.Pattern[str]:
    """A pattern for `words` that ignores their spacing.

    White space matters only where it keeps two words apart: `A = 43` also finds `A=43`, and `case A:` finds `case A :`.
    In CMake a word may contain hyphens.
    """
    letter = r"[\w-]" if language == "cmake" else r"\w"
    tokens = re.findall(rf"{letter}+|(?:(?!{letter})\S)+|\s+", words.strip())
    pattern, before = "", ""
    for token in tokens:
        if not token.isspace():
            both_words = re.match(letter, before[-1:]) and re.match(letter, token)
            pattern += (r"\s+" if both_words else r"\s*" if before else "") + re.escape(token)
            before = token
    opening = rf"(?<!{letter})" if re.match(letter, tokens[0]) else ""
    closing = rf"(?!{letter})" if re.search(rf"{letter}$", tokens[-1]) else ""
    return re.compile(opening + pattern + closing)


def find_scopes(text: str, language: Language, header: str) -> list[Span]:
    """Bodies, brackets left out, of all definitions that begin with `header`.

    Occurrences without a body (declarations, calls, other uses of the name) are skipped. In CMake the scope is the
    argument list of a command.
    """
    code = mask(text, language, strings=True)
    found = []
    for match in needle(header, language).finditer(code):
        opening = _body_opening(code, match, language)
        if opening is not None:
            closing = _closing(code, opening)
            if closing is not None:
                found.append(Span(start=opening + 1, end=closing))
    return found


def find_anchors(text: str, language: Language, anchor: str, within: Span) -> list[Span]:
    """Every place inside `within` where the code matches `anchor`; comments are ignored."""
    code = mask(text, language, strings=False)
    return [
        Span(start=match.start(), end=match.end())
        for match in needle(anchor, language).finditer(code, within.start, within.end)
    ]


def enclosing_line(text: str, offset: int) -> str:
    """The nearest line at or above `offset` that starts in the first column with a letter: the scope's name."""
    for line in reversed(text[:offset].split("\n")):
        if re.match(r"[A-Za-z_]", line) and not line.rstrip().endswith(":"):
            return line.strip().rstrip("{").rstrip()[:90]
    return ""


def line_number(text: str, offset: int) -> int:
    """Line of an offset, counted from 1."""
    return text.count("\n", 0, offset) + 1


def _body_opening(code: str, header: re.Match[str], language: Language) -> int | None:
    """Offset of the bracket that opens the body after a header, or None when there is no body.

    In C and Go the body starts at the first brace outside parentheses. A semicolon, or a closing bracket that the
    header did not open, means that this is no definition.
    """
    if language == "cmake":
        position = code.find("(", header.start(), header.end())
        return position if position >= 0 else None
    depth = code.count("(", header.start(), header.end()) - code.count(")", header.start(), header.end())
    assigned = False
    for position in range(header.end(), len(code)):
        char = code[position]
        if char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
            if depth < 0:
                return None
        elif depth == 0:
            if char == "{":
                return position
            if char in ";,}" or (char == "\n" and language == "go" and not assigned and _go_ends(code, position)):
                return None
            assigned = assigned or char == "="
    return None


def _go_ends(code: str, newline: int) -> bool:
    """Whether Go's grammar ends a statement at this line break (a type or function body opens on its own line)."""
    return not code[:newline].rstrip(" \t").endswith(("{", "(", ",", "=", "+", "|", "&"))


def _closing(code: str, opening: int) -> int | None:
    """Offset of the bracket that closes the one at `opening`."""
    closer, opener = _CLOSER[code[opening]], code[opening]
    depth = 0
    for match in re.compile(f"[{re.escape(opener + closer)}]").finditer(code, opening):
        depth += 1 if match.group() == opener else -1
        if depth == 0:
            return match.start()
    return None
