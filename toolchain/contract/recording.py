"""`series.contract`: the symbols that our sources use on several trees, merged into the contract of the series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from packaging.version import Version

from ..core import extras
from ..core.console import Console
from ..core.records import record
from ..core.run import Run
from ..series import drift, manifest
from ..series.facts import read_facts
from ..series.manifest import Series
from ..series.patched import patch, reader
from ..series.render import contained
from ..series.symbols import ABSENT, ANY, Form, Kind, Symbol, save
from ..series.tree import Tree
from ..sources import eras, open_origin, pin
from .holding import fewest, held


@record
class Recorded:
    """A recorded contract, compared with the previous one."""

    trees: tuple[str, ...]
    symbols: int
    several: int
    """symbols that the trees have in more than one form"""
    added: tuple[str, ...]
    gone: tuple[str, ...]


def record_contract(run: Run, series: Series, names: Sequence[str], releases: Sequence[str] = ()) -> Recorded:
    """Record on the named trees of llama.cpp (by default the first supported and the newest), and seal the series.

    `releases` are Ollama's, whose trees contain a llama.cpp.

    Raises `MissingExtra`, `ConfigError` for an unsupported tree, and the errors of `record_on`.
    """
    extras.require("clang", "recording a contract")
    settings, console = run.config.sources, run.console
    llama_cpp = open_origin("llama.cpp", settings.llama_cpp, run.config, console)
    with llama_cpp as repository, open_origin("ollama", settings.ollama, run.config, console) as ollama:
        wanted = [*names] or [drift.SINCE, "HEAD"]
        trees = []
        for name in wanted:
            found = pin.resolve(repository, name, nearest=False, console=console)
            trees.append(Tree(target="llama.cpp", repository=repository, commit=found.commit, version=str(found.build)))
        trees += [contained(ollama, name) for name in releases]
        symbols = record_on(series, trees, console)
    save(series.root, symbols)
    manifest.seal(series.root)
    return summary(series.contract, symbols, trees)


def record_on(series: Series, trees: Sequence[Tree], console: Console) -> tuple[Symbol, ...]:
    """The symbols that our sources use on any of the trees, with their forms there, the newest first.

    Raises the error of an edit that does not apply, and `SeriesError` where our sources do not compile.
    """
    from . import uses  # needs libclang, an extra

    found: dict[tuple[Kind, str], dict[Form, None]] = {}
    parsed = []
    by_era: dict[str, set[tuple[Kind, str]]] = {}
    for tree in sorted(trees, key=_age):
        with console.step(f"find the symbols that our sources use of llama.cpp {tree.version}"):
            patched = patch(series, tree, read_facts(series, (tree,)))
            read = reader(tree, patched)
            used = uses.find(patched, read, frozenset(tree.paths()))
        for key, forms in used.items():
            found.setdefault(key, {}).update(dict.fromkeys(forms))
        parsed.append((tree.era, patched.words(), used, reader(tree)))
        by_era.setdefault(tree.era, set()).update(used)
    symbols = [Symbol(kind=kind, name=name, forms=tuple(forms)) for (kind, name), forms in found.items()]
    symbols = [replace(symbol, forms=fewest(symbol)) for symbol in symbols]
    for number, symbol in enumerate(symbols):
        key = (symbol.kind, symbol.name)
        unused = [Form(form=ABSENT, file=era) for era, there in by_era.items() if key not in there]
        symbols[number] = symbol = replace(symbol, forms=(*symbol.forms, *unused))
        for era, words, used, read in parsed:
            # our text has the word, but not in code that is compiled there
            if symbol.is_of(era) and key not in used and symbol.word in words and held(symbol, read):
                symbols[number] = replace(symbol, forms=(*symbol.forms, Form(form=ABSENT, file=ANY)))
                break
    return tuple(sorted(symbols, key=lambda one: (one.kind, one.name)))


def _age(tree: Tree) -> tuple[int, list[int]]:
    """A key that sorts trees, the newest first."""
    return [era.name for era in eras.ERAS].index(tree.era), [-number for number in Version(tree.version).release]


def summary(before: Sequence[Symbol], after: Sequence[Symbol], trees: Sequence[Tree]) -> Recorded:
    """What changed in a contract."""
    old, new = ({f"{one.kind} {one.name}" for one in side} for side in (before, after))
    return Recorded(
        trees=tuple(tree.version for tree in trees),
        symbols=len(after),
        several=sum(len(one.forms) > 1 for one in after),
        added=tuple(sorted(new - old)),
        gone=tuple(sorted(old - new)),
    )
