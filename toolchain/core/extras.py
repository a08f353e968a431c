"""Packages that only some tasks need: extras of pyproject.toml, which ./inv installs on request."""

from __future__ import annotations

import importlib.util
import shlex
import sys

from .errors import MissingExtra

_EXTRAS = {
    "clang": ("libclang", "clang"),
    "dev": ("pytest",) * 2,
    "fleet": ("fabric",) * 2,
    "plots": ("matplotlib",) * 2,
    "release": ("tuf",) * 2,
    "zig": ("ziglang",) * 2,
}
"""extra -> its main package, and a module of that"""


def installed() -> tuple[str, ...]:
    """The extras that this environment has."""
    return tuple(extra for extra, (_, module) in _EXTRAS.items() if importlib.util.find_spec(module))


def command(extra: str) -> str:
    """The current command line, with an extra requested."""
    return f"TURBOQUANT_EXTRAS={extra} {shlex.join(['./inv', *sys.argv[1:]])}"


def require(extra: str, purpose: str) -> None:
    """Raise `MissingExtra` where the extra that `purpose` needs is not installed."""
    if extra not in installed():
        package, _ = _EXTRAS[extra]
        raise MissingExtra(f"{purpose} needs {package} (extra {extra}), which is not installed", hint=command(extra))
