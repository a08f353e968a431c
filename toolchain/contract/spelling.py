"""C and C++ declarations as spelled: names and types from tokens, normalized so that two trees can be compared.

Names are not resolved. What does not matter to a caller (`struct`, `inline`, attributes, parameter names) is left out,
so that forms differ only if callers may be affected.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from ..core.records import record

_TOKEN = re.compile(r'[A-Za-z_]\w*|::|->|\.\.\.|&&|<<|\d[\w.\']*|"[^"\n]*"|\'[^\'\n]*\'|[^\s\w]')
_DROPPED = frozenset((
    "struct", "enum", "union", "class", "typename", "static", "extern", "inline", "virtual", "explicit", "friend",
    "register", "restrict", "__restrict", "__restrict__", "noexcept", "override", "final", "thread_local", "mutable",
))  # fmt: skip
_API = re.compile(r"[A-Z][A-Z0-9_]*_(?:API|CALL|NORETURN|RESTRICT|INLINE)$|_Noreturn$|__inline__?$")
_SHOUTED = re.compile(r"[A-Z_][A-Z0-9_]+$")
_WORD = re.compile(r"[A-Za-z_]\w*$")
_BUILTIN = frozenset(["void", "bool", "char", "short", "int", "long", "float", "double", "signed", "unsigned", "auto"])
_QUALIFIER = frozenset(("const", "volatile", "constexpr"))
_OPEN, _CLOSE = {"(": ")", "[": "]", "{": "}", "<": ">"}, {")": "(", "]": "[", "}": "{", ">": "<"}


@record
class Spelled:
    """One declared name. A function's form is its return type and its parameters' types."""

    name: str
    form: str
    function: bool
    static: bool = False


@lru_cache(maxsize=8192)
def spell(statement: str) -> tuple[Spelled, ...]:
    """The names that a declaration (without its body and its semicolon) declares, if any."""
    tokens = _TOKEN.findall(statement)
    static = "static" in tokens
    tokens = _unwrapped(_without_template(_cleaned(tokens)))
    if not tokens or tokens[0] in ("using", "return", "typedef", "goto", "throw", "delete", "case"):
        return ()
    opening = _call(tokens)
    if opening is not None:
        return _function(tokens, opening, static)
    parts = _split(tokens, ",")
    first = _declarator(parts[0])
    if first is None or not first[0] or not first[1]:
        return ()
    found = [Spelled(name=first[0], form=first[1], function=False, static=static)]
    base = _base(parts[0])
    for part in parts[1:]:
        other = _declarator([*base, *part])
        if other:
            found.append(Spelled(name=other[0], form=other[1], function=False, static=static))
    return tuple(found)


@lru_cache(maxsize=2048)
def parameters(form: str) -> tuple[str, tuple[str, ...]]:
    """Return type and parameters of a function's form."""
    returned, _, rest = form.partition("(")
    # a return type has no parenthesis, and nothing after the last one is a parameter
    tokens = _TOKEN.findall(rest.rpartition(")")[0])
    return returned.strip(), tuple(_text(part) for part in _split(tokens, ",") if part)


def type_of(tokens: str) -> str:
    """A type in its normalized form."""
    return _text(_cleaned(_TOKEN.findall(tokens)))


def tokens_of(text: str) -> list[str]:
    """The tokens of code without comments."""
    return _TOKEN.findall(text)


def _cleaned(tokens: Sequence[str]) -> list[str]:
    found: list[str] = []
    position = 0
    while position < len(tokens):
        one = tokens[position]
        following = tokens[position + 1] if position + 1 < len(tokens) else ""
        if one in (
            "__attribute__",
            "alignas",
            "_Alignas",
            "__declspec",
            "GGML_ATTRIBUTE_FORMAT",
            "LLAMA_ATTRIBUTE_FORMAT",
        ):
            position = _closing(tokens, position + 1) + 1 if following == "(" else position + 1
        elif one == "[" and following == "[":
            position = _closing(tokens, position) + 1
        elif one in _DROPPED or _API.match(one) or (one == '"C"'):
            position += 1
        else:
            found.append(one)
            position += 1
    return found


def _without_template(tokens: list[str]) -> list[str]:
    while tokens[:2] == ["template", "<"]:
        tokens = tokens[_closing(tokens, 1) + 1 :]
    return tokens


def _unwrapped(tokens: list[str]) -> list[str]:
    """A declaration inside a macro that marks it, such as DEPRECATED(declaration, "why")."""
    if len(tokens) > 2 and _SHOUTED.match(tokens[0]) and tokens[1] == "(" and "DEPRECATED" in tokens[0]:
        inside = tokens[2 : _closing(tokens, 1)]
        return _cleaned(_split(inside, ",", keep_first=True)[0])
    return tokens


def _call(tokens: Sequence[str]) -> int | None:
    """Index of the parenthesis that opens a function's parameters: the first one outside of <>, after a name."""
    depth = 0
    for position, one in enumerate(tokens):
        if one == "[" or (one == "<" and position and _WORD.match(tokens[position - 1])):
            depth += 1
        elif one in (">", "]") and depth:
            depth -= 1
        elif one == "=" and not depth and "operator" not in tokens[:position]:
            return None
        elif one == "(" and not depth:
            after = tokens[position + 1 : position + 2]
            before = tokens[position - 1] if position else ""
            pointer = after in (["*"], ["&"]) and ")" in tokens[position + 2 : position + 5]
            if pointer and "(" in tokens[position + 3 :]:
                return None
            return position if _WORD.match(before) or "operator" in tokens[:position] else None
    return None


def _function(tokens: list[str], opening: int, static: bool) -> tuple[Spelled, ...]:
    begin = opening - 1
    if "operator" in tokens[:opening]:
        begin = tokens.index("operator")
    while begin >= 2 and tokens[begin - 1] == "::" and _WORD.match(tokens[begin - 2]):
        begin -= 2
    if begin >= 1 and tokens[begin - 1] == "~":
        begin -= 1
    name = "".join(tokens[begin:opening])
    closing = _closing(tokens, opening)
    returned = [one for one in tokens[:begin] if one != "constexpr"]
    if returned and (returned[-1] in (".", "->", ",", "!", "=", "?") or returned[0] in ("if", "for", "while", "else")):
        return ()
    taken = []
    for part in _split(tokens[opening + 1 : closing], ","):
        if part and part != ["void"]:
            taken.append(parameter(part))
    constant = " const" if "const" in tokens[closing + 1 : closing + 3] else ""
    form = f"{_text(returned)} ({', '.join(taken)}){constant}".strip()
    return (Spelled(name=name, form=form, function=True, static=static),)


def parameter(tokens: list[str]) -> str:
    """The type of one parameter; one that has a default ends in an equals sign."""
    parts = _split(tokens, "=", angles=False)
    default = " =" if len(parts) > 1 else ""
    words = parts[0]
    found = _declarator(words)
    if found is None or not found[1]:
        return _text(words) + default
    return found[1] + default


def _declarator(tokens: list[str]) -> tuple[str, str] | None:
    """Name and type of a variable, member or parameter; the name may be empty."""
    tokens = _split(tokens, "=", angles=False)[0]
    for position in range(len(tokens) - 2):
        if tokens[position] == "(" and tokens[position + 1] in ("*", "&"):
            named = bool(_WORD.match(tokens[position + 2]))
            name, rest = (tokens[position + 2], position + 3) if named else ("", position + 2)
            taken = tokens.index("(", rest) if "(" in tokens[rest:] else len(tokens)
            end = _closing(tokens, taken) if taken < len(tokens) else taken
            types = [parameter(part) for part in _split(tokens[taken + 1 : end], ",") if part]
            form = _text([*tokens[: position + 2], *tokens[rest:taken]])
            return name, f"{form} ({', '.join(types)})" if taken < len(tokens) else form
    bits = _split(tokens, ":")
    tail: list[str] = []
    if len(bits) == 2:
        tokens, tail = bits[0], [":", *bits[1]]
    while tokens and tokens[-1] == "]":
        opening = len(tokens) - 1
        while opening and tokens[opening] != "[":
            opening -= 1
        tail = tokens[opening:] + tail
        tokens = tokens[:opening]
    if not tokens or not _WORD.match(tokens[-1]):
        return ("", _text([*tokens, *tail])) if tokens else None
    name, before = tokens[-1], tokens[:-1]
    typed = any((_WORD.match(one) and one not in _QUALIFIER) or one in (">", "...") for one in before)
    if not typed or name in _BUILTIN or name in _QUALIFIER or before[-1] == "::":
        return "", _text([*tokens, *tail])
    return name, _text([*before, *tail])


def _base(tokens: list[str]) -> list[str]:
    """The part that several declarators of one declaration share: the type up to the first star."""
    tokens = _split(tokens, "=", angles=False)[0]
    end = len(tokens)
    while end and tokens[end - 1] == "]":
        while end and tokens[end - 1] != "[":
            end -= 1
        end -= 1
    found = tokens[: max(end - 1, 0)]
    while found and found[-1] in ("*", "&", "const"):
        found.pop()
    return found


def _closing(tokens: Sequence[str], opening: int) -> int:
    depth, opener = 0, tokens[opening] if opening < len(tokens) else ""
    closer = _OPEN.get(opener, "")
    for position in range(opening, len(tokens)):
        if tokens[position] == opener:
            depth += 1
        elif tokens[position] == closer:
            depth -= 1
            if not depth:
                return position
    return len(tokens) - 1


def _split(tokens: Sequence[str], at: str, *, angles: bool = True, keep_first: bool = False) -> list[list[str]]:
    """The parts between separators outside of brackets; with `keep_first`, without the part after the last one."""
    parts: list[list[str]] = [[]]
    depth = 0
    for one in tokens:
        if one in ("(", "[", "{") or (angles and one == "<"):
            depth += 1
        elif one in (")", "]", "}") or (angles and one == ">"):
            depth = max(0, depth - 1)
        if one == at and not depth:
            parts.append([])
        else:
            parts[-1].append(one)
    if keep_first and len(parts) > 1:
        return [[one for part in parts[:-1] for one in [*part, at]][:-1]]
    return parts


def _text(tokens: Sequence[str]) -> str:
    text = ""
    for one in tokens:
        tight = not text or one in ("::", ")", "]", ">", ",", "<", ";") or text.endswith(("::", "(", "[", "<", "~"))
        text += one if tight else f" {one}"
    return text
