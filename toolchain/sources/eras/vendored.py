"""Before Ollama 0.30.0: llama.cpp's sources are part of Ollama's tree, in two folders, and are compiled through CGo.
Makefile.sync names the commit that they were copied from."""

from __future__ import annotations

import re

from ...stages import Target
from ..repository import Repository
from .era import Engine, Native, Way, read_pin

_SYNC_FILE = "Makefile.sync"
_FETCH_HEAD = re.compile(rb"^FETCH_HEAD\s*[:?]?=\s*(\S+)\s*$", re.MULTILINE)
_LLAMA_CPP = "llama/llama.cpp"
_GGML = "ml/backend/ggml/ggml"


class Vendored:
    """See `Era`."""

    name = "vendored"
    marks = f"{_SYNC_FILE} and {_LLAMA_CPP}/"
    targets: tuple[Target, ...] = ("ollama",)
    patches = "llama/patches"
    compat = ""
    """its patches are part of the copied sources"""
    ways: frozenset[Way] = frozenset({"cgo"})
    native = Native(
        folder="",
        component="CPU",
        targets=("ggml-cpu",),
        linux="CPU",
        macos="",
        programs=("bin/ollama",),
        takes_llama_cpp=False,
    )
    layer_rules = False
    engines = (
        Engine(name="llama runner", environment={"OLLAMA_DEBUG": "1"}),
        Engine(
            name="Ollama engine",
            environment={"OLLAMA_DEBUG": "1", "OLLAMA_NEW_ENGINE": "1"},
            cache_line="ollama_kv_cache",
        ),
    )
    unserved = ""
    unbuilt = ""
    hint = "take Ollama v0.15.0 or newer"

    def pin(self, ollama: Repository, commit: str) -> str | None:
        """See `Era`."""
        if ollama.exists(commit, _LLAMA_CPP) and (content := ollama.read_blob(commit, _SYNC_FILE)) is not None:
            found = _FETCH_HEAD.search(content)
            return read_pin(found.group(1) if found else b"", _SYNC_FILE)
        return None

    def place(self, path: str) -> str:
        """See `Era`. Makefile.sync copies ggml/ to one folder and some of the rest to another."""
        first, _, below = path.partition("/")
        return f"{_GGML}/{below}".rstrip("/") if first == "ggml" else f"{_LLAMA_CPP}/{path}"

    def origin(self, place: str) -> str | None:
        """See `Era`."""
        if place.startswith(f"{_GGML}/"):
            return f"ggml/{place.removeprefix(f'{_GGML}/')}"
        return place.removeprefix(f"{_LLAMA_CPP}/") if place.startswith(f"{_LLAMA_CPP}/") else None
