"""The interface of an era of Ollama's tree."""

from __future__ import annotations

import re
from typing import Literal, Protocol

from ...core.errors import UnknownLayout
from ...core.records import record
from ...stages import Target
from ..repository import Repository

Way = Literal["cgo", "loaded", "compat", "programs"]
"""How Ollama uses llama.cpp: cgo: compiled in; loaded: symbols looked up at run time; compat: Ollama's own C++ compiled
into llama.cpp; programs: llama.cpp's programs are run."""

LLAMA_SERVER = "lib/ollama/llama-server"
"""llama-server in a release, where Ollama has one"""

_PIN = re.compile(r"b\d{1,7}|[0-9a-f]{7,40}|[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")


@record
class Engine:
    """What runs a model in a built Ollama."""

    name: str
    """for reports; empty where there is only one"""
    environment: dict[str, str]
    """of an Ollama that runs every model with it, and whose log states context shifts"""
    cache_line: str = "llama_kv_cache"
    """how its line on a cache starts"""


@record
class Native:
    """What CMake builds of an Ollama's C and C++, beside what Go compiles."""

    folder: str
    """of CMakeLists.txt and CMakePresets.json in Ollama's tree"""
    component: str
    """what of it is installed, and a name for its steps"""
    targets: tuple[str, ...]
    linux: str
    macos: str
    """the preset there; empty: Go compiles everything"""
    programs: tuple[str, ...]
    """programs of a release, as paths in it"""
    takes_llama_cpp: bool
    """whether it is told where llama.cpp is"""


class Era(Protocol):
    """A period in which Ollama's tree relates to llama.cpp in one way. All differences between eras are here."""

    @property
    def name(self) -> str:
        """As in the field `era` of records."""

    @property
    def marks(self) -> str:
        """The files and folders that identify such a tree, for a message."""

    def pin(self, ollama: Repository, commit: str) -> str | None:
        """The llama.cpp that the tree names, verbatim; None for a tree of another era.

        Raises `UnknownLayout` for a tree of this era whose pin cannot be read.
        """

    @property
    def targets(self) -> tuple[Target, ...]:
        """The trees that a series renders for, in that order. Without llama.cpp, its sources are in Ollama's tree."""

    def place(self, path: str) -> str:
        """The path of a file or folder of llama.cpp in the tree that contains it."""

    def origin(self, place: str) -> str | None:
        """The path in llama.cpp of what lies at `place`, as `place` inverted; None for what is not llama.cpp's."""

    @property
    def compat(self) -> str:
        """Folder of Ollama's patches for llama.cpp and of its own C++ for it; empty if there is none."""

    @property
    def patches(self) -> str:
        """Folder of patches in `git am`'s form, by which Ollama makes its copy of llama.cpp; empty if there is none."""

    @property
    def ways(self) -> frozenset[Way]:
        """How Ollama uses llama.cpp."""

    @property
    def native(self) -> Native:
        """What CMake builds of such a tree."""

    @property
    def engines(self) -> tuple[Engine, ...]:
        """What runs models, each of which must be proven."""

    @property
    def layer_rules(self) -> bool:
        """Whether single layers can have types of their own."""

    @property
    def unserved(self) -> str:
        """Why the series does not support such a tree, as a clause; empty if it does."""

    @property
    def unbuilt(self) -> str:
        """Why such a tree cannot be built; empty if it can."""

    @property
    def hint(self) -> str:
        """What to use instead of an unsupported tree."""


def read_pin(pin: bytes, file: str) -> str:
    """A pin as text. Raises `UnknownLayout` when it is not the name of a build, version or commit."""
    text = pin.decode(errors="replace")
    if not _PIN.fullmatch(text):
        raise UnknownLayout(f"{file} names no llama.cpp commit or build tag: {text[:60]!r}", hint="check the ref")
    return text
