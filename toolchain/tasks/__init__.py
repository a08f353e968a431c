"""The tasks of `./inv`, a module for each collection. A task only calls one function and prints its record."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from invoke.collection import Collection

from . import command

_COLLECTIONS = (
    "sources",
    "series",
    "fork",
    "api",
    "build",
    "verify",
    "validate",
    "metal",
    "quality",
    "memory",
    "deploy",
    "release",
    "provision",
    "fleet",
    "profile",
)


def namespace(words: Sequence[str] = ()) -> Collection:
    """All tasks; or, for a command line that begins with one of a collection and asks for no help, that collection's:
    importing what all tasks use takes longer than most of them run."""
    first = words[0].partition(".")[0] if words else ""
    if first in _COLLECTIONS and not any(word.startswith(("-h", "--h", "-l", "--l")) for word in words):
        made = Collection()
        made.add_collection(_tasks_of(first))
        return made
    made = _tasks_of("journey")  # tasks outside of collections
    for name in _COLLECTIONS:
        made.add_collection(_tasks_of(name))
    return made


def _tasks_of(name: str) -> Collection:
    found: Collection = import_module(f".{name}", __package__).group.collection
    return found


def main(words: Sequence[str]) -> None:
    """`./inv` with these words."""
    command.main(namespace(words), namespace)


__all__ = ["main", "namespace"]
