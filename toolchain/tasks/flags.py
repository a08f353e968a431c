"""Flags that set a setting, and flags that may be repeated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from ..core.cachetypes.grammar import split_settings
from ..core.errors import ConfigError

SETTINGS: dict[str, tuple[str, str]] = {
    "ollama": ("sources.ollama", "Ollama: a URL or a local git repository"),
    "ollama_ref": ("sources.ollama_ref", "branch, tag or commit of Ollama"),
    "llama_cpp": ("sources.llama_cpp", "llama.cpp: a URL or a local git repository"),
    "llama_cpp_ref": ("sources.llama_cpp_ref", "commit of llama.cpp instead of the pinned one"),
    "fork": ("fork.origin", "fork of llama.cpp: a URL or a local git repository"),
    "prefix": ("deploy.prefix", "folder of the installation"),
    "port": ("deploy.port", "port of the service"),
    "kv_cache_type": ("deploy.kv_cache_type", "cache type of the service, or K:V"),
    "inventory": ("fleet.inventory", "inventory of hosts in waves: a YAML file"),
    "workspace": ("workspace", "folder for mirrors, scratch trees and builds"),
}
"""Flags that set a setting: name -> its key and help."""

SOURCES = ("ollama", "ollama_ref", "llama_cpp", "llama_cpp_ref", "workspace")


class Names(tuple[str, ...]):
    """Names: the flag is repeatable, and each value may list several, separated by commas or blanks."""

    @classmethod
    def read(cls, given: Iterable[str], flag: str = "") -> Self:  # noqa: ARG003  errors of others name it
        """The values."""
        return cls(name for text in given for name in text.replace(",", " ").split())


class CacheSettings(tuple[str, ...]):
    """Settings of cache types, whose rules may contain commas."""

    @classmethod
    def read(cls, given: Iterable[str], flag: str = "") -> Self:  # noqa: ARG003
        """The values."""
        return cls(split_settings(" ".join(given)))


class Numbers(tuple[int, ...]):
    """Whole numbers from 0 on, given as `Names` are."""

    @classmethod
    def read(cls, given: Iterable[str], flag: str = "") -> Self:
        """The values. Raises `ConfigError` for anything else."""
        for text in (names := Names.read(given)):
            if not (text.isascii() and text.isdigit()):
                raise ConfigError(f"--{flag} {text!r}: expected a whole number from 0 on", hint=f"--{flag} 1")
        return cls(map(int, names))
