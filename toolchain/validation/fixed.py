"""The prompts and questions that the tests ask: data files beside this module, the same in every validation."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TypeVar

import msgspec

from ..core.documents import read_yaml
from ..core.records import record, sha256_bytes, sha256_file
from ..models.quality.samples import TEXT_SHA256

R = TypeVar("R")
FOLDER = Path(__file__).with_name("prompts")


@record
class Keyed:
    """Facts of one kind about several keys."""

    kind: str
    keys: tuple[str, ...]


@record
class Several:
    """A fact with several values: how each is stated, asked for, and continued."""

    fact: str
    question: str
    continued: str


@record
class Chat:
    """What stands around a text in a chat; `after` holds {question}."""

    before: str
    after: str


@record
class Needles:
    """needle.yaml."""

    single: tuple[str, ...]
    keyed: Keyed
    several: Several
    chat: Chat


@record
class Prompt:
    """One of the ten prompts. `text` may hold {document}; `checks` are those of `checks.py`."""

    key: str
    category: str
    tokens: int
    """that the answer may take"""
    text: str
    checks: tuple[str, ...]


@cache
def needles() -> Needles:
    """What the needle test hides and asks."""
    return _read("needle.yaml", Needles)


@cache
def prompts() -> tuple[Prompt, ...]:
    """The ten prompts, in their order."""
    return _read("prompts.yaml", tuple[Prompt, ...])


def digest() -> str:
    """SHA-256 over all data files and the digest of the text that the long prompt shows."""
    files = sorted(path for path in FOLDER.iterdir() if path.suffix in (".yaml", ".txt"))
    said = "".join(f"{path.name} {sha256_file(path)}\n" for path in files)
    return sha256_bytes(f"{said}{TEXT_SHA256}\n".encode())


def _read(name: str, kind: type[R]) -> R:
    return msgspec.convert(read_yaml(FOLDER / name), kind)
