"""Facts read from the pristine trees, for the inserts to use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..core.cachetypes.table import UPSTREAM, CacheType, bits_per_value
from ..core.errors import AnchorMissing
from . import patterns
from .lexing import language_of, mask
from .manifest import Fact, Series
from .place import find_scopes
from .tree import Tree

Facts = dict[str, Any]
_MOST_DIGITS = 4000
"""Python reads no longer number"""


def read_facts(series: Series, trees: tuple[Tree, ...]) -> Facts:
    """Every declared fact, with `types`, the series' own cache types, and `upstream_types`, the others.

    A number is an int, a fact of `all` matches a list. Raises `AnchorMissing` for a fact that the tree lacks, if it has
    no default.
    """
    facts: Facts = {"types": _described(series.types), "upstream_types": _described(UPSTREAM)}
    by_target = {tree.target: tree for tree in trees}
    for name, fact in series.facts.items():
        tree = by_target.get(fact.target)
        if tree is not None:
            facts[name] = _read(name, fact, tree)
    return facts


def _described(kinds: Iterable[CacheType]) -> list[dict[str, Any]]:
    """The fields of a type for templates; `bits` are the whole bits that a value takes."""
    return [
        {"name": kind.name, "block": kind.block, "bytes": kind.bytes, "bits": int(bits_per_value(kind))}
        for kind in kinds
    ]


def _read(name: str, fact: Fact, tree: Tree) -> Any:
    data = tree.repository.read_blob(tree.commit, fact.file)
    found: list[str] = []
    if data is not None:
        text, language = data.decode(errors="replace"), language_of(fact.file)
        code = mask(text, language, strings=False)
        spans = find_scopes(text, language, fact.scope) if fact.scope else []
        bodies = [code[span.start : span.end] for span in spans] if fact.scope else [code]
        matches = (match for body in bodies for match in patterns.matches(f"fact {name}", fact.pattern, body))
        found = [match[1] for match in matches if match[1] is not None]
    if not found and fact.default is not None:
        found = [fact.default]
    if not found:
        raise AnchorMissing(
            f"fact {name}: {tree.target} {tree.version} has no {fact.pattern!r} in {fact.scope or fact.file}",
            hint="upstream may have moved it: series.yaml says where it is read",
        )
    values = [int(value) if value.isdecimal() and len(value) < _MOST_DIGITS else value for value in found]
    return list(dict.fromkeys(values)) if fact.all else values[0]
