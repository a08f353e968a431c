"""Whether a tree still has the symbols that our sources use, in a usable form; if not, what it has instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from ..core.errors import FetchFailed
from ..core.records import record
from ..series.lexing import language_of
from ..series.patched import Read, included, reader
from ..series.symbols import ABSENT, ANY, Form, Kind, Symbol
from ..series.tree import Tree
from .declared import Declaration, declarations
from .spelling import parameters

_NUMBER = re.compile(r"(?:unsigned|signed|bool|char|short|int|long|float|double|size_t|u?int\d+_t|auto)(?: \w+)*$")
_HEADERS = (".h", ".hpp", ".inc")
_ELSEWHERE = 30
"""number of files that are searched for a symbol that moved"""
_UNDER = ("ggml", "include", "src", "common", "tools", "tests")
_NOUNS = {"enumerator": "enum value", "local": "variable", "field": "field"}


@record
class Breach:
    """A symbol that a tree lacks, or declares in a form that our sources cannot use."""

    kind: Kind
    name: str
    where: str
    """file:line of the tree's declaration, or the file where it was"""
    reason: str
    used: tuple[str, ...] = ()
    """added or edited files that use it"""
    culprit: str = ""
    """the upstream commit that changed it, if it was found"""

    def __str__(self) -> str:
        return f"{_NOUNS.get(self.kind, self.kind)} {self.name}: {self.reason} ({self.where})"


def asked(symbols: Iterable[Symbol], words: Mapping[str, Sequence[str]], era: str) -> list[Symbol]:
    """The symbols that our text uses on this tree; parts, facts and templates may leave some out.

    A variable of a function can only be used in that function's file.
    """
    return [
        symbol
        for symbol in symbols
        if symbol.word in words
        and symbol.is_of(era)
        and (symbol.kind != "local" or any(form.file in words[symbol.word] for form in symbol.forms))
    ]


def hold(
    symbols: Sequence[Symbol], tree: Tree, words: Mapping[str, Sequence[str]], roots: Sequence[str] = ()
) -> list[Breach]:
    """The symbols that a pristine tree breaks. `roots` are the files that use them; their includes are searched.

    Raises `FetchFailed` for a file that a partial clone lacks.
    """
    read = reader(tree)
    found = [(symbol, breach) for symbol in symbols if (breach := held(symbol, read))]
    if not found:
        return []
    search = _Elsewhere(tree, read, roots)
    breaches = []
    for symbol, breach in found:
        again = search.explain(symbol, breach)
        if again:
            used = tuple(sorted(words.get(symbol.word, ())))
            breaches.append(Breach(kind=again.kind, name=again.name, where=again.where, reason=again.reason, used=used))
    return breaches


def held(symbol: Symbol, read: Read) -> Breach | None:
    """Check one symbol in the files where it was recorded."""
    seen: list[tuple[Form, Declaration]] = []
    for form in symbol.forms:
        if form.form == ABSENT:
            continue
        content = read(form.file)
        if content is None:
            continue
        for one in _declared(symbol, form, content.decode(errors="replace")):
            if _fits(symbol, form, one):
                return None
            seen.append((form, one))
    if not seen:
        if Form(form=ABSENT, file=ANY) in symbol.forms:
            return None
        return Breach(kind=symbol.kind, name=symbol.name, where=_recorded(symbol), reason="is gone")
    form, one = min(seen, key=lambda pair: _distance(pair[0], pair[1]))
    reason = _difference(symbol, form, one)
    return Breach(kind=symbol.kind, name=symbol.name, where=f"{form.file}:{one.line}", reason=reason)


def _recorded(symbol: Symbol) -> str:
    return next((form.file for form in symbol.forms if form.form != ABSENT), symbol.forms[0].file)


def fewest(symbol: Symbol) -> tuple[Form, ...]:
    """The forms without those that another one covers: functions that differ only in added defaults."""
    kept = []
    for form in symbol.forms:
        one = Declaration(kind=symbol.kind, name=symbol.name, form=form.form.removeprefix("static "), line=0)
        others = (other for other in symbol.forms if other.file == form.file and other.form != form.form)
        if symbol.kind != "function" or not any(_fits(symbol, other, one) for other in others):
            kept.append(form)
    return tuple(kept)


def _declared(symbol: Symbol, form: Form, text: str) -> list[Declaration]:
    declared = declarations(text)
    if symbol.kind != "local":
        return declared.of(symbol.kind, symbol.name)
    function, _, name = symbol.name.partition("()::")
    if form.form.startswith("by "):
        # a macro declares it
        line = declared.holds(function, form.form.removeprefix("by "))
        if line:
            return [Declaration(kind="local", name=symbol.name, form=form.form, line=line)]
    return declared.local(function, name)


def _fits(symbol: Symbol, form: Form, one: Declaration) -> bool:
    wanted = form.form.removeprefix("static ")
    if symbol.kind == "local":
        return _plain(wanted) == _plain(one.form)
    if symbol.kind != "function":
        return wanted == one.form
    if one.static and wanted == form.form and not form.file.endswith(_HEADERS):
        return False
    if wanted == one.form:
        return True
    (returns, takes), (returned, taken) = parameters(wanted), parameters(one.form)
    # a caller can ignore parameters with defaults
    more = taken[len(takes) :]
    known = taken[: len(takes)]
    same = all(new in (old, f"{old} =") for new, old in zip(known, takes, strict=False))
    return returns == returned and len(taken) >= len(takes) and same and all(new.endswith(" =") for new in more)


def _plain(form: str) -> str:
    """The type of a variable in one of upstream's functions: all numeric types are equal, and const does not matter to
    code that only reads it."""
    bare = re.sub(r"\bconst\b ?|\b\w+::", "", form).strip()
    return "number" if _NUMBER.match(bare) or bare.startswith("by ") else bare


def _difference(symbol: Symbol, form: Form, one: Declaration) -> str:
    wanted = form.form.removeprefix("static ")
    if symbol.kind != "function":
        return f"is {one.form}, not {wanted}"
    if one.static and wanted == form.form and wanted == one.form:
        return "became static"
    (returns, takes), (returned, taken) = parameters(wanted), parameters(one.form)
    said = []
    if len(takes) != len(taken):
        said.append(f"takes {len(taken)} parameters, not {len(takes)}: {one.form}")
    else:
        said += [
            f"parameter {number} is {new}, not {old}"
            for number, (old, new) in enumerate(zip(takes, taken, strict=True), start=1)
            if old != new
        ]
    if returns != returned:
        said.append(f"returns {returned or 'nothing'}, not {returns or 'nothing'}")
    return "; ".join(said) or f"is {one.form}, not {wanted}"


def _distance(form: Form, one: Declaration) -> int:
    wanted, found = form.form.split(), one.form.split()
    return len(set(wanted) ^ set(found)) + abs(len(wanted) - len(found))


class _Elsewhere:
    """Searches for symbols that moved. One instance for each tree, since it reads many files."""

    def __init__(self, tree: Tree, read: Read, roots: Sequence[str]) -> None:
        self._tree, self._read, self._roots = tree, read, roots
        self._reached: frozenset[str] | None = None

    def explain(self, symbol: Symbol, breach: Breach) -> Breach | None:
        """A breach with its details; None if the symbol only moved to a header that we include."""
        if breach.reason != "is gone" or symbol.kind == "local":
            return breach
        for path, one in self._others(symbol):
            form = Form(form=symbol.forms[0].form, file=path)
            where = f"{path}:{one.line}"
            if path.endswith(_HEADERS) and path in self._reachable():
                if any(_fits(symbol, Form(form=known.form, file=path), one) for known in symbol.forms):
                    return None
                return _of(symbol, where, f"moved, and {_difference(symbol, form, one)}")
            if one.static and not path.endswith(_HEADERS):
                return _of(symbol, where, "became static")
            return _of(symbol, where, f"moved from {symbol.forms[0].file} to a file that our sources do not include")
        return breach

    def _others(self, symbol: Symbol) -> Iterator[tuple[str, Declaration]]:
        under = [self._tree.place(folder) for folder in _UNDER]
        found = self._tree.repository.grep(self._tree.commit, [symbol.word], under, "-l", "-w")
        places = [place.removeprefix(f"{self._tree.commit}:") for place in found]
        names = [path for place in places if (path := self._tree.origin(place)) is not None]
        near = [form.file for form in symbol.forms]
        folder = PurePosixPath(near[0]).parent
        # headers first, and those beside the old place before others
        order = sorted(names, key=lambda path: (PurePosixPath(path).parent != folder, not path.endswith(_HEADERS)))
        for path in [path for path in order if language_of(path) == "c" and path not in near][:_ELSEWHERE]:
            content = self._read(path)
            if content is not None:
                for one in declarations(content.decode(errors="replace")).of(symbol.kind, symbol.name)[:1]:
                    yield path, one

    def _reachable(self) -> frozenset[str]:
        if self._reached is None:
            present = frozenset(self._tree.paths())
            try:
                self._reached = frozenset(included(self._read, present, self._roots))
            except FetchFailed:
                self._reached = frozenset()
        return self._reached


def _of(symbol: Symbol, where: str, reason: str) -> Breach:
    return Breach(kind=symbol.kind, name=symbol.name, where=where, reason=reason)
