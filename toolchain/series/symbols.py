"""The contract as a file of the series: one symbol of upstream a line, with every form that our sources can use."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from ..core.errors import SeriesError
from ..core.records import record, write_bytes

NAME = "contract.txt"
"""in the folder of the series"""
ABSENT = "absent"
"""the form on a tree where our sources do not use the symbol; an era in place of a file: on all of its trees"""
ANY = "-"
"""in place of a file: on some trees"""
Kind = Literal["enumerator", "field", "function", "local", "macro", "type", "variable"]
KINDS: tuple[str, ...] = get_args(Kind)
_HEAD = """\
# What our C, C++ and Objective-C use of llama.cpp's code; made by ./inv series.contract, never by hand.
# kind name | form | file that declares it. What other served trees have instead follows after ||.
"""


@record
class Form:
    """One way in which a tree declares a symbol."""

    form: str
    file: str


@record
class Symbol:
    """A name of upstream's. Members are named with their type, a function's variables with the function: f()::x."""

    kind: Kind
    name: str
    forms: tuple[Form, ...]

    def is_of(self, era: str) -> bool:
        """Whether our sources use it on any tree of an era."""
        return Form(form=ABSENT, file=era) not in self.forms

    @property
    def word(self) -> str:
        """The name as used in our sources."""
        return self.name.rpartition("::")[2]


def parse(text: str, where: str) -> tuple[Symbol, ...]:
    """The symbols of a contract. Raises `SeriesError` with the line that is malformed."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        head, *forms = (part.strip() for part in line.replace(" || ", " \n ").split("\n"))
        words = [word.strip() for word in head.split(" | ")]
        kind, _, name = words[0].partition(" ")
        pairs = [words[1:], *([word.strip() for word in form.split(" | ")] for form in forms)]
        if kind not in KINDS or not name.strip() or any(len(pair) != 2 for pair in pairs):
            raise SeriesError(f"{where}:{number}: malformed: {line!r}", hint="./inv series.contract regenerates it")
        known: Kind = kind  # type: ignore[assignment]  # looked up in KINDS
        made = tuple(Form(form=form, file=file) for form, file in pairs)
        found.append(Symbol(kind=known, name=name.strip(), forms=made))
    return tuple(found)


def text(symbols: tuple[Symbol, ...]) -> str:
    """The contract's file, sorted."""
    lines = [
        f"{symbol.kind} {symbol.name} | " + " || ".join(f"{form.form} | {form.file}" for form in symbol.forms)
        for symbol in sorted(symbols, key=lambda one: (one.kind, one.name))
    ]
    return _HEAD + "".join(f"{line}\n" for line in lines)


def save(root: Path, symbols: tuple[Symbol, ...]) -> Path:
    """Write the contract into the folder of a series, which must be sealed afterwards."""
    write_bytes(root / NAME, text(symbols).encode())
    return root / NAME
