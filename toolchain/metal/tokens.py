"""Tokens of a preprocessed Metal source, with their file and line."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import Path

_TOKEN = re.compile(
    r"""(?P<marker>^\#\s+(?P<line>\d+)\s+"(?P<file>(?:[^"\\]|\\.)*)".*$)
      | (?P<directive>^\s*\#.*$)
      | (?P<space>\s+)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<number>\.?\d(?:[eEpP][+-]|'\w|[\w.])*)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<punctuator>\[\[|->|::|<<=|>>=|<=|>=|==|!=|&&|\|\||\+\+|--|[-+*/%&|^]=|<<|.)
    """,
    re.MULTILINE | re.VERBOSE,
)


@dataclasses.dataclass(frozen=True)
class Token:
    """A piece of code: `kind` is string, number, word or punctuator; `start` is its offset in the text."""

    kind: str
    text: str
    start: int
    file: str
    line: int

    @property
    def end(self) -> int:
        """The offset after it."""
        return self.start + len(self.text)


@functools.lru_cache(maxsize=4)  # each pipeline of a source is made of the same text
def tokenize(text: str, own: Path) -> tuple[Token, ...]:
    """The tokens of the output of `clang -E`, without those of files under `own` (the harness's headers)."""
    found: list[Token] = []
    file, line, skip = "", 1, False
    brackets: list[str] = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        word = match.group()
        if match.group("marker") is not None:
            # the marker names the line after it
            file, line = match.group("file").replace('\\"', '"').replace("\\\\", "\\"), int(match.group("line")) - 1
            skip = file.startswith("<") or Path(file).is_relative_to(own)
        elif kind == "space":
            line += word.count("\n")
        elif kind != "directive" and not skip:
            # two closing brackets are one token only where an attribute ends: a[b[0]] has none
            if word in ("[", "[["):
                brackets.append(word)
            elif word == "]" and found and found[-1].text == "]" and brackets == ["[["]:
                brackets.pop()
                found[-1] = dataclasses.replace(found[-1], text="]]")
                continue
            elif word == "]" and brackets and brackets[-1] == "[":
                brackets.pop()
            found.append(Token(kind, word, match.start(), file, line))
    return tuple(found)


def matching(tokens: Sequence[Token], at: int) -> int:
    """The index of the bracket that closes the one at `at`; the last index when none does."""
    pairs = {"(": ")", "[": "]", "{": "}", "[[": "]]"}
    opens = tokens[at].text
    closes, depth = pairs[opens], 0
    for index in range(at, len(tokens)):
        if tokens[index].text == opens:
            depth += 1
        elif tokens[index].text == closes:
            depth -= 1
            if depth == 0:
                return index
    return len(tokens) - 1


def split(tokens: Sequence[Token]) -> list[list[Token]]:
    """Parts between commas outside of all brackets, including angle brackets."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        if token.text in "([{<" or token.text == "[[":
            depth += 1
        elif token.text in ")]}>" or token.text == "]]":
            depth -= 1
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def spell(tokens: Sequence[Token]) -> str:
    """Tokens as code again."""
    return " ".join(token.text for token in tokens)


def after_template(head: Sequence[Token]) -> int:
    """The index after `template <...>`; 0 if there is none."""
    if len(head) < 2 or head[0].text != "template" or head[1].text != "<":
        return 0
    at, depth = 1, 0
    while at < len(head):
        if head[at].text in ("(", "[", "{"):
            at = matching(head, at)
        depth += {"<": 1, ">": -1}.get(head[at].text, 0)
        at += 1
        if depth == 0:
            break
    return at


def parameters_at(head: Sequence[Token]) -> int:
    """The index of the bracket that begins a function's parameters; the length if there is none."""
    at = after_template(head)
    while at < len(head) and head[at].text != "(":
        at = matching(head, at) + 1 if head[at].text == "[[" else at + 1
    return at
