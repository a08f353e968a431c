"""How an Ollama tree names the llama.cpp that it is built with, read from git objects."""

from __future__ import annotations

import re

from ..core.errors import UnknownLayout
from ..core.records import record
from ..stages import Era
from .repository import Repository

PIN_FILE = "LLAMA_CPP_VERSION"
COMPAT = "llama/compat"
_SYNC_FILE = "Makefile.sync"
_VENDORED = "llama/llama.cpp"
_FETCH_HEAD = re.compile(rb"^FETCH_HEAD\s*[:?]?=\s*(\S+)\s*$", re.MULTILINE)
_PIN = re.compile(r"b\d{1,7}|[0-9a-f]{7,40}|[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")


@record
class Layout:
    """The era of a tree and the pin as it stands there."""

    era: Era
    pin: str


def recognise(repository: Repository, commit: str) -> Layout:
    """Tell the two eras apart. Raises `UnknownLayout` for anything else, with what was looked for."""
    if repository.exists(commit, COMPAT) and (content := repository.read_blob(commit, PIN_FILE)) is not None:
        return Layout(era="pinned", pin=_checked(content.strip(), PIN_FILE))
    if repository.exists(commit, _VENDORED) and (content := repository.read_blob(commit, _SYNC_FILE)) is not None:
        found = _FETCH_HEAD.search(content)
        return Layout(era="vendored", pin=_checked(found.group(1) if found else b"", _SYNC_FILE))
    raise UnknownLayout(
        f"{repository.git_dir} at {commit[:12]}: neither layout of Ollama "
        f"(pinned: {PIN_FILE} and {COMPAT}/; vendored: {_SYNC_FILE} and {_VENDORED}/)",
        hint="check --ollama and its ref: is this Ollama's repository, and later than 2023?",
    )


def _checked(pin: bytes, file: str) -> str:
    text = pin.decode(errors="replace")
    if not _PIN.fullmatch(text):
        raise UnknownLayout(f"{file} names no llama.cpp commit or build tag: {text[:60]!r}", hint="check the ref")
    return text
