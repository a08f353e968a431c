"""Commits that touched a symbol that our sources use, and not only the file that declares it.

A file is split into statements: declarations, heads of definitions, fields, enum values, directives. A commit touches a
symbol if it changes the statements that declare its name, other than in spacing, comments or line breaks. Uses of the
symbol elsewhere in the file do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from ...core.errors import FetchFailed
from ...core.records import record
from ...series.lexing import Language, language_of, mask
from ...series.manifest import Series
from ...series.place import Span, find_scopes, needle
from ...series.symbols import ABSENT
from ...sources import Commit, Repository

_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*")
_TOKEN = re.compile(r"::|->|\w+|[^\w\s]")
_NO_TYPE = frozenset(("return", "else", "case", "goto", "delete", "new", "throw", "sizeof", "co_return"))
_KINDS = frozenset(("struct", "class", "union", "enum", "using"))
_MANY = 400
"""maximum number of commits, the newest first"""
_HEADER = "\x01"


@record
class Watched:
    """A symbol of upstream and the file that declares it."""

    file: str
    symbol: str
    """members are named with their type, as in ggml_tensor::ne, a function's variables with the function: f()::x"""

    @property
    def owner(self) -> str:
        """The type or function, without its ::, that the name is declared in; may be empty."""
        return self.symbol.rpartition("::")[0]

    @property
    def word(self) -> str:
        """The name as written in the file."""
        return self.symbol.rpartition("::")[2]


@record
class Touch:
    """A commit, and what it touched."""

    commit: Commit
    symbols: tuple[str, ...]


def watched(series: Series) -> tuple[Watched, ...]:
    """The symbols of the series' contract with every file that declares them on some tree; none without a contract."""
    return tuple(
        Watched(file=form.file, symbol=symbol.name)
        for symbol in series.contract
        for form in symbol.forms
        if form.form != ABSENT
    )


def touches(repository: Repository, span: str, symbols: Iterable[Watched]) -> tuple[Touch, ...]:
    """The commits of a range that touched one of the symbols, newest first.

    Contents that a partial clone lacks are skipped.
    """
    by_file: dict[str, list[Watched]] = {}
    for one in dict.fromkeys(symbols):
        by_file.setdefault(one.file, []).append(one)
    if not by_file:
        return ()
    reading = _Reading(repository, by_file)
    found = []
    for commit, changed in _changes(repository, span, sorted(by_file)):
        names = {name for path, old, new in changed for name in reading.differing(path, commit.id, old, new)}
        if names:
            found.append(Touch(commit=commit, symbols=tuple(sorted(names))))
    return tuple(found)


def declaring(text: str, one: Watched) -> tuple[str, ...]:
    """The statements of a file that declare a symbol, in the definition of its owner if that is found."""
    function = one.owner.removesuffix("()") if one.owner.endswith("()") else ""
    own = one.owner.rpartition("::")[2]
    heads = [f"{function}("] if function else [f"{kind} {own}" for kind in sorted(_KINDS)] if own else []
    bodies = [(head, span) for head in heads if head in text for span in _scopes(text, language_of(one.file), head)]
    if not bodies:
        return _declaring(text, one)
    found: list[str] = []
    for head, span in bodies:
        found += _declaring(text[span.start : span.end], one)
        if function:
            # a parameter: the whole head, for one more or less before it moves it
            begin = list(needle(head, language_of(one.file)).finditer(text, 0, span.start))[-1].start()
            tokens = _TOKEN.findall(mask(text[begin : span.start], language_of(one.file), strings=False))
            found += [" ".join(tokens)] if one.word in tokens else []
    return tuple(found)


def _declaring(text: str, one: Watched) -> tuple[str, ...]:
    if one.word not in text:
        return ()
    return tuple(statement for statement in _statements(text, one.file) if declares(statement, one.word))


@lru_cache(maxsize=256)
def _scopes(text: str, language: Language, head: str) -> tuple[Span, ...]:
    return tuple(find_scopes(text, language, head))


@lru_cache(maxsize=64)
def _statements(text: str, path: str) -> tuple[str, ...]:
    return tuple(statements(text, path))


def statements(text: str, path: str) -> Iterator[str]:
    """The statements of a file, one after the other, as tokens with a blank between them."""
    code = mask(text, language_of(path), strings=False)
    for match in _DIRECTIVE.finditer(code):
        yield " ".join(_TOKEN.findall(match.group()))
    depth, begin = 0, 0
    code = _DIRECTIVE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), code)
    for match in re.finditer(r"[(){}\[\];,]", code):
        sign = match.group()
        if sign in "([":
            depth += 1
        elif sign in ")]":
            depth = max(0, depth - 1)
        elif sign in "{}" or depth == 0:
            # a brace ends all open brackets: lambdas occur in arguments, and macros may open without closing
            depth = 0
            yield " ".join(_TOKEN.findall(code[begin : match.start()]))
            begin = match.end()
    yield " ".join(_TOKEN.findall(code[begin:]))


def declares(statement: str, word: str) -> bool:
    """Whether a statement of tokens declares a name, and does not merely use it."""
    if word not in statement:
        return False
    tokens = statement.split(" ")
    if tokens[0] == "#":
        return tokens[1:3] == ["define", word]
    for place, token in enumerate(tokens):
        if token != word:
            continue
        before, after = tokens[place - 1] if place else "", tokens[place + 1] if place + 1 < len(tokens) else ""
        if not before:
            found = word.isupper() and after in ("", "=")  # an enum value
        elif before in _KINDS or tokens[0] == "typedef":
            found = after in ("", ":", "=", "final")
        else:
            typed = before in ("*", "&", ">", "::") or (_WORD.fullmatch(before) and before not in _NO_TYPE)
            # a parameter and a product look alike, so names in brackets are left to their function
            found = bool(typed) and after in ("", "=", "(", "[", ":") and not _inside(tokens[:place])
        if found:
            return True
    return False


def _inside(tokens: list[str]) -> bool:
    return tokens.count("(") > tokens.count(")") or "=" in tokens


_Change = tuple[str, str, str]
"""path, and the ids of its contents before and after"""


def _changes(repository: Repository, span: str, files: list[str]) -> Iterator[tuple[Commit, list[_Change]]]:
    log = repository.git(
        *("log", "--no-merges", "--no-renames", "--raw", "--no-abbrev", f"--max-count={_MANY}"),
        *(f"--format={_HEADER}%H%x00%cI%x00%s", span, "--", *files),
    )
    for entry in log.split(_HEADER)[1:]:
        head, *lines = entry.splitlines()
        commit, date, subject = head.split("\0", 2)
        changed = []
        for line in filter(None, lines):
            meta, _, path = line.partition("\t")
            _, _, old, new, _ = meta.split(" ", 4)
            changed.append((path, old, new))
        yield Commit(id=commit, date=date[:10], subject=subject), changed


class _Reading:
    """The declarations of each content, read once: the content after one commit is that before the next."""

    def __init__(self, repository: Repository, by_file: Mapping[str, Sequence[Watched]]) -> None:
        self._repository = repository
        self._by_file = by_file
        self._known: dict[str, dict[str, tuple[str, ...]] | None] = {}

    def differing(self, path: str, commit: str, old: str, new: str) -> list[str]:
        """The symbols that a commit touched in one file."""
        before, after = self._of(path, f"{commit}^", old), self._of(path, commit, new)
        if before is None or after is None:
            return []
        return [name for name in before.keys() | after.keys() if before.get(name, ()) != after.get(name, ())]

    def _of(self, path: str, commit: str, content: str) -> dict[str, tuple[str, ...]] | None:
        """None if the content is unavailable; the id of a missing file is all zeros."""
        if not content.strip("0"):
            return {}
        if content not in self._known:
            try:
                data = self._repository.read_blob(commit, path)
            except FetchFailed:
                data = None
            text = "" if data is None else data.decode(errors="replace")
            self._known[content] = (
                None if data is None else {one.symbol: declaring(text, one) for one in self._by_file[path]}
            )
        return self._known[content]
