"""How an Ollama tree names the llama.cpp that it is built with, read from git objects."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import UnknownLayout
from . import eras
from .repository import Repository


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The era of a tree, and its pin verbatim."""

    era: eras.Era
    pin: str


def recognise(repository: Repository, commit: str) -> Layout:
    """The era of a tree and its pin. Raises `UnknownLayout`, which lists what each era must have."""
    for era in eras.ERAS:
        if (pin := era.pin(repository, commit)) is not None:
            return Layout(era=era, pin=pin)
    raise UnknownLayout(
        f"{repository.git_dir} at {commit[:12]}: no known layout of Ollama "
        f"({'; '.join(f'{era.name}: {era.marks}' for era in eras.ERAS)})",
        hint="check --ollama and its ref: is this Ollama's repository, and later than 2023?",
    )
