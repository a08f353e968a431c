"""What a side's llama-server stored of a text: its saved cache, kept as a file beside its cell."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ...core.errors import StateInvalid, TextTooShort
from ...core.records import make_folder, record, sha256_file
from ..llama_endpoint import LlamaEndpoint
from ..plan import Side
from ..trial import Trial

TOKENS = 1024
FEWEST_TOKENS = 128
_ROOM = 16  # free tokens of the context: a full one is refused


@record
class Tokens:
    """What both caches read."""

    tokens: tuple[int, ...]


@record
class Kept:
    """A file beside its cell."""

    sha256: str
    bytes: int


def tokens(trial: Trial) -> tuple[int, ...]:
    """The first tokens of the plan's text. Raises `TextTooShort`."""

    def found() -> Tokens:
        server = _server(trial, "candidate")
        read = server.tokenize(trial.plan.text.read_text(encoding="utf-8"))
        if len(read) < FEWEST_TOKENS:
            raise TextTooShort(
                f"the text has {len(read)} tokens, {FEWEST_TOKENS} are needed", hint="--text names a longer one"
            )
        return Tokens(tokens=read[: min(TOKENS, server.context - _ROOM)])

    return trial.kept("attention/tokens", Tokens, found).tokens


def stored(trial: Trial, side: Side, read: tuple[int, ...]) -> Path:
    """The cache that the side's server has after these tokens, as it saves it."""

    def save(path: Path) -> None:
        server = _server(trial, side)
        server.generate(read, tokens=1, reuse=False)
        os.replace(server.server.save(), path)

    return beside(trial, f"attention/{side}-stored", ".slot", save)


def beside(trial: Trial, key: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """The file of a cell, made now unless it is kept. Raises `StateInvalid` when it is another one than was kept."""
    path = trial.store.path(key).with_suffix(suffix)

    def made() -> Kept:
        make_folder(path.parent)
        make(path)
        return Kept(sha256=sha256_file(path), bytes=path.stat().st_size)

    kept = trial.kept(key, Kept, made)
    if not path.is_file() or sha256_file(path) != kept.sha256:
        raise StateInvalid(f"{path}: is not what was kept", hint="./inv validate --again measures anew")
    return path


def _server(trial: Trial, side: Side) -> LlamaEndpoint:
    endpoint = trial.at(side)
    assert isinstance(endpoint, LlamaEndpoint)
    return endpoint
