"""The declarations of a C or C++ file, read from its text alone, without a compiler or include paths.

Function bodies are skipped; names in them are looked up on demand.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from functools import lru_cache

from ..core.records import record
from ..series.lexing import mask
from .spelling import spell, tokens_of, type_of

_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.)*(?:\\\n(?:[^\n\\]|\\.)*)*", re.MULTILINE)
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)(\([^)\n]*\))?", re.MULTILINE)
_BRANCH = re.compile(r"^[ \t]*#[ \t]*(if|ifdef|ifndef|else|elif|endif)\b", re.MULTILINE)
_BRACKET = re.compile(r"[(){}\[\];]")
_SPACE = re.compile(r'(?:extern\s*"[^"]*"|(?:inline\s+)?namespace\b[^(]*)\s*$')
_TYPE = re.compile(
    r"^\s*(?P<typedef>typedef\s+)?(?:template\s*<.*>\s*)?(?:static\s+|const\s+|extern\s+)*"
    r"(?P<kind>struct|class|union|enum)\b(?P<rest>[^=()]*)$",
    re.DOTALL,
)
_ACCESS = re.compile(r"^\s*(?:(?:public|private|protected)\s*:(?!:)\s*)+")
_ALIAS = re.compile(r"^\s*using\s+(\w+)\s*=\s*(.*)$", re.DOTALL)
_FORWARD = re.compile(r"^\s*(struct|class|union|enum)\s+(?:class\s+)?(\w+)\s*(?::[^:].*)?$", re.DOTALL)
_TYPEDEF = re.compile(r"^\s*typedef\s+(.*)$", re.DOTALL)
_SHOUTED = re.compile(r"^(?:[A-Z][A-Z0-9_]+|alignas)$")
_WORD = re.compile(r"[A-Za-z_]\w*")
_NO_TYPE = frozenset(
    ("return", "else", "case", "goto", "delete", "new", "throw", "sizeof", "typename", "using", "operator", "do")
)


@record
class Declaration:
    """One declaration of a name; `kind` is one of the contract's."""

    kind: str
    name: str
    form: str
    line: int
    static: bool = False


@record
class Body:
    """A function's parameters and body, as offsets of the file's code."""

    name: str
    start: int
    end: int


class Declarations:
    """The declarations of one file by kind and name, and the bodies of its functions."""

    def __init__(self, text: str) -> None:
        self.code = _DIRECTIVE.sub(_blank, mask(text, "c", strings=True))
        self.found: dict[tuple[str, str], list[Declaration]] = {}
        self.bodies: dict[str, list[Body]] = {}
        self._lines: list[int] = [match.start() for match in re.finditer("\n", self.code)]
        bare = mask(text, "c", strings=False)
        for match in _DEFINE.finditer(bare):
            taken = match[2]
            count = len([one for one in taken.strip("()").split(",") if one.strip()]) if taken else 0
            self._add("macro", match[1], f"of {count} arguments" if taken else "without arguments", match.start(1))
        if not self._balanced():
            # preprocessor branches that each open a brace: use the first branch
            self.code = _DIRECTIVE.sub(_blank, _first_branches(mask(text, "c", strings=True)))
        self._scope(0, len(self.code), "")

    def of(self, kind: str, name: str) -> list[Declaration]:
        """All declarations of a name."""
        return self.found.get((kind, name), [])

    def line(self, offset: int) -> int:
        """Line of an offset, counted from 1."""
        return bisect.bisect_left(self._lines, offset) + 1

    def local(self, function: str, name: str) -> list[Declaration]:
        """Parameters and variables of a name in a function's bodies, also those in heads of lambdas and loops."""
        found = []
        for body in self.bodies.get(function, []):
            for start, end, form in _locals(self.code, body, name):
                found.append(Declaration(kind="local", name=f"{function}()::{name}", form=form, line=self.line(start)))
                del end
                break
        return found

    def holds(self, function: str, statement: str) -> int:
        """The line of a statement in a function's bodies; 0 if it is not there."""
        wanted = r"\s*".join(map(re.escape, tokens_of(statement)))
        for body in self.bodies.get(function, []):
            match = re.search(wanted, self.code[body.start : body.end])
            if match:
                return self.line(body.start + match.start())
        return 0

    def statement_at(self, line: int) -> str:
        """The statement that begins on a line, with normalized spaces; for names that a macro declares."""
        begin = self._lines[line - 2] + 1 if line > 1 else 0
        end = self.code.find(";", begin)
        return " ".join(tokens_of(self.code[begin : end if end >= 0 else len(self.code)]))

    def _balanced(self) -> bool:
        depth = 0
        for match in re.finditer(r"[{}]", self.code):
            depth += 1 if match.group() == "{" else -1
            if depth < 0:
                return False
        return depth == 0

    def _add(self, kind: str, name: str, form: str, offset: int, static: bool = False) -> None:
        one = Declaration(kind=kind, name=name, form=form, line=self.line(offset), static=static)
        self.found.setdefault((kind, name), []).append(one)

    def _scope(self, start: int, end: int, path: str) -> None:
        """Statements from `start` to `end`; `path` is the type that they are members of."""
        # a statement may continue after a block, as an array's does: `text` is its part so far, from `origin` on
        begin, depth, text, position, origin = start, 0, "", start, start
        while True:
            match = _BRACKET.search(self.code, position, end)
            if match is None:
                return
            at, char = match.start(), match.group()
            position = at + 1
            if char in "([":
                depth += 1
            elif char in ")]":
                depth = max(0, depth - 1)
            elif depth:
                continue
            elif char == ";":
                self._statement(text + self.code[begin:at], origin if text else begin, path)
                begin, text = position, ""
            elif char == "{":
                head = _ACCESS.sub("", text + self.code[begin:at])
                closing = _closing(self.code, at, end)
                position = closing + 1
                again = self._block(head, begin, at, closing, path)
                if again is None:
                    begin, text = position, ""
                else:
                    origin = origin if text else _first(self.code, begin)
                    begin, text = position, again
            elif char == "}":
                begin, text = position, ""

    def _block(self, head: str, begin: int, opening: int, closing: int, path: str) -> str | None:
        """A braced block after `head`. Returns the statement's text so far; None when it has ended."""
        if _SPACE.search(head.strip()) and "(" not in head:
            self._scope(opening + 1, closing, path)
            return None
        typed = _TYPE.match(head)
        if typed:
            kind = "struct" if typed["kind"] == "class" else typed["kind"]
            rest = re.sub(r"(?<!:):(?!:).*", "", typed["rest"], flags=re.DOTALL)
            words = [
                word for word in _WORD.findall(rest) if word not in ("class", "final") and not _SHOUTED.match(word)
            ]
            name = words[-1] if words else ""
            after = self.code[closing + 1 : self.code.find(";", closing) + 1 or len(self.code)]
            if not name and typed["typedef"]:
                found = _WORD.search(after)
                name = found.group() if found else ""
            own = f"{path}::{name}".removeprefix("::") if name else path
            if kind == "enum":
                self._enumerators(opening + 1, closing, own, path)
            else:
                self._scope(opening + 1, closing, own)
            if name:
                self._add(
                    "type", own, kind, begin + len(self.code[begin:opening]) - len(self.code[begin:opening].lstrip())
                )
            return f"typedef {kind} {name} " if typed["typedef"] else f"{name or 'unnamed'} "
        if _initialised(head):
            return f"{head} "
        spelled = spell(_ACCESS.sub("", _without_initialisers(head)))
        if spelled and spelled[0].function:
            one = spelled[0]
            name = one.name if "::" in one.name else f"{path}::{one.name}".removeprefix("::")
            self._add("function", name, one.form, _first(self.code, begin), one.static)
            self.bodies.setdefault(name, []).append(Body(name=name, start=begin, end=closing))
            return None
        return f"{head} " if head.strip() and ")" not in head else None

    def _statement(self, text: str, begin: int, path: str) -> None:
        text = _ACCESS.sub("", text)
        offset = _first(self.code, begin)
        alias, typedef, forward = _ALIAS.match(text), _TYPEDEF.match(text), _FORWARD.match(text)
        if alias:
            self._add("type", f"{path}::{alias[1]}".removeprefix("::"), type_of(alias[2]), offset)
        elif typedef:
            for one in spell(typedef[1]):
                self._add("type", f"{path}::{one.name}".removeprefix("::"), one.form, offset)
        elif forward:
            kind = "struct" if forward[1] == "class" else forward[1]
            self._add("type", f"{path}::{forward[2]}".removeprefix("::"), kind, offset)
        elif text.strip():
            for one in spell(text):
                kind = "function" if one.function else "field" if path else "variable"
                self._add(kind, f"{path}::{one.name}".removeprefix("::"), one.form, offset, one.static)

    def _enumerators(self, start: int, end: int, own: str, path: str) -> None:
        depth, begin = 0, start
        for match in re.compile(r"[(){},]").finditer(self.code, start, end):
            char = match.group()
            depth += (char in "({") - (char in ")}")
            if char == "," and not depth:
                self._enumerator(begin, match.start(), own, path)
                begin = match.end()
        self._enumerator(begin, end, own, path)

    def _enumerator(self, begin: int, end: int, own: str, path: str) -> None:
        found = _WORD.search(self.code, begin, end)
        if found:
            name = f"{path}::{found.group()}".removeprefix("::")
            self._add("enumerator", name, f"of {own or 'an enum without a name'}", found.start())
            if own and own != path:
                self._add("enumerator", f"{own}::{found.group()}", f"of {own}", found.start())


@lru_cache(maxsize=256)
def declarations(text: str) -> Declarations:
    """The declarations of a file."""
    return Declarations(text)


def _locals(code: str, body: Body, name: str) -> Iterator[tuple[int, int, str]]:
    for match in re.compile(rf"\b{re.escape(name)}\b").finditer(code, body.start, body.end):
        before = code[max(body.start, match.start() - 400) : match.start()]
        after = code[match.end() : match.end() + 40].lstrip()
        if not after or after[0] not in "=;,):[({" or after.startswith("=="):
            continue
        piece = _declaring(before)
        piece = piece if piece.strip() else _declaring_first(before)
        words = _WORD.findall(piece)
        if not words or words[0] in _NO_TYPE or not re.search(r"[\w>*&]\s*$", piece):
            continue
        if re.search(r"(?:\.|->|[-+/%!?|^]|&&|\)|\])\s*\w*\s*[*&]*\s*$", piece) or re.search(r"[^\s\w*&<>:,]", piece):
            continue
        if after[0] in "([" and not re.search(r"\w\s*$|[*&>]\s*$", piece):
            continue
        form = type_of(piece)
        # const does not matter to code that only reads the variable
        yield match.start(), match.end(), form if re.search(r"[*&]", form) else form.removeprefix("const ")


def _declaring(before: str) -> str:
    """The end of `before` that may be a type: from the beginning of a statement, parameter or loop head."""
    depth = 0
    for position in range(len(before) - 1, -1, -1):
        char = before[position]
        if char == ">":
            depth += 1
        elif char == "<":
            depth -= 1
        elif (
            char in "(;{}"
            or (char == "," and depth <= 0)
            or (char == ":" and before[position - 1 : position] != ":" and before[position + 1 : position + 2] != ":")
        ):
            return before[position + 1 :]
    return before


def _declaring_first(before: str) -> str:
    """The type before a declaration's first name, when `before` ends in the comma after that name."""
    begin = max(before.rfind(char) for char in ";{}") + 1
    statement = before[begin:]
    if statement.count("(") != statement.count(")"):
        return ""
    first = re.match(r"(\s*[\w:<>\s]*[\w>]\s*[*&\s]*?)\b[A-Za-z_]\w*\s*(?:=|\[|,)", statement)
    return first[1] if first else ""


def _closing(code: str, opening: int, end: int) -> int:
    depth = 0
    for match in re.compile(r"[{}]").finditer(code, opening, end):
        depth += 1 if match.group() == "{" else -1
        if not depth:
            return match.start()
    return end


def _initialised(head: str) -> bool:
    """Whether a head has an equals sign outside of parentheses."""
    depth = 0
    for part in tokens_of(head):
        depth += (part in ("(", "[")) - (part in (")", "]"))
        if part == "operator":
            return False
        if part == "=" and not depth:
            return True
    return False


def _without_initialisers(head: str) -> str:
    """A function's head without a constructor's initialisers, which follow the parameters and a colon."""
    depth = 0
    for position, char in enumerate(head):
        depth += (char == "(") - (char == ")")
        beside = head[position - 1 : position + 2].replace(char, "", 1)
        if char == ":" and not depth and ":" not in beside and ")" in head[:position]:
            return head[:position]
    return head


def _first(code: str, begin: int) -> int:
    """The first offset from `begin` on that is no white space."""
    found = re.compile(r"\S").search(code, begin)
    return found.start() if found else begin


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match.group())


def _first_branches(text: str) -> str:
    """The text with every #else and #elif branch blanked, line for line."""
    lines, nested, dead = text.split("\n"), list[bool](), 0
    for number, line in enumerate(lines):
        match = _BRANCH.match(line)
        if match is None:
            lines[number] = " " * len(line) if dead else line
            continue
        word = match[1]
        if word.startswith("if"):
            nested.append(False)
        elif word == "endif" and nested:
            dead -= nested.pop()
        elif nested and not nested[-1]:
            nested[-1] = True
            dead += 1
    return "\n".join(lines)
