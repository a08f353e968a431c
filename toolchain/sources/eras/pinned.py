"""From Ollama 0.30.0 on: LLAMA_CPP_VERSION names a llama.cpp, which Ollama's build fetches, patches and runs as
llama-server."""

from __future__ import annotations

from ...stages import Target
from ..repository import Repository
from .era import LLAMA_SERVER, Engine, Native, Way, read_pin

_PIN_FILE = "LLAMA_CPP_VERSION"


class Pinned:
    """See `Era`."""

    name = "pinned"
    compat = "llama/compat"
    patches = ""
    marks = f"{_PIN_FILE} and {compat}/"
    targets: tuple[Target, ...] = ("llama.cpp", "ollama")
    """llama.cpp first, since its diff is a file of Ollama's"""
    ways: frozenset[Way] = frozenset({"loaded", "compat", "programs"})
    native = Native(
        folder="llama/server",
        component="llama-server",
        targets=("llama-server", "llama-quantize"),
        linux="cpu",
        macos="darwin",
        programs=("bin/ollama", LLAMA_SERVER),
        takes_llama_cpp=True,
    )
    layer_rules = True
    engines = (Engine(name="", environment={}),)
    unserved = unbuilt = hint = ""

    def pin(self, ollama: Repository, commit: str) -> str | None:
        """See `Era`."""
        if ollama.exists(commit, self.compat) and (content := ollama.read_blob(commit, _PIN_FILE)) is not None:
            return read_pin(content.strip(), _PIN_FILE)
        return None

    def place(self, path: str) -> str:
        """See `Era`: a repository of its own."""
        return path

    def origin(self, place: str) -> str | None:
        """See `Era`."""
        return place
