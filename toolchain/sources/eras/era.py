"""What an era of Ollama's tree has to say of itself."""

from __future__ import annotations

import re
from typing import Literal, Protocol

from ...core.errors import UnknownLayout
from ...stages import Target
from ..repository import Repository

Way = Literal["cgo", "loaded", "compat", "programs"]
"""How Ollama uses llama.cpp: compiled with it through CGo, its symbols looked up at run time, C++ of Ollama's own that
is compiled into it, or its programs started and asked."""

_PIN = re.compile(r"b\d{1,7}|[0-9a-f]{7,40}|[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")


class Era(Protocol):
    """A time in which Ollama's tree gets at llama.cpp in one way. Whatever differs between eras is asked here."""

    @property
    def name(self) -> str:
        """As in the `era` of records."""

    @property
    def marks(self) -> str:
        """The files and folders that tell such a tree from others, for a message."""

    def pin(self, ollama: Repository, commit: str) -> str | None:
        """The llama.cpp that the tree names, as it stands there; None for a tree that is not of this era.

        Raises `UnknownLayout` for a tree of this era whose pin cannot be read.
        """

    @property
    def targets(self) -> tuple[Target, ...]:
        """The trees that a series renders for, in that order. Without llama.cpp among them, it lies in Ollama's."""

    def place(self, path: str) -> str:
        """Where a file or folder of llama.cpp lies in the tree that has it."""

    @property
    def compat(self) -> str:
        """Folder of Ollama's patches for llama.cpp and of its C++ that is compiled into it; empty where it has none."""

    @property
    def ways(self) -> frozenset[Way]:
        """How Ollama uses llama.cpp."""

    @property
    def unserved(self) -> str:
        """Why the series does not serve such a tree, as a clause; empty where it does."""

    @property
    def unbuilt(self) -> str:
        """Why nothing is built from such a tree; empty where something is."""

    @property
    def hint(self) -> str:
        """What to take instead of a tree that is not served."""


def read_pin(pin: bytes, file: str) -> str:
    """A pin as text. Raises `UnknownLayout` for what cannot be the name of a build, version or commit."""
    text = pin.decode(errors="replace")
    if not _PIN.fullmatch(text):
        raise UnknownLayout(f"{file} names no llama.cpp commit or build tag: {text[:60]!r}", hint="check the ref")
    return text
