"""The compiler and linker: a clang that is new enough, the system's or the ziglang wheel's."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ..core import extras
from ..core.errors import MissingTool
from ..core.process import ask

CLANG_NEEDED = 17


@dataclass(frozen=True)
class Drivers:
    """The first words of each command."""

    front: tuple[str, ...]
    """compiles code without a C library"""
    native: tuple[str, ...]
    """compiles code with the C library"""
    link: tuple[str, ...]
    version: str


@functools.cache
def drivers() -> Drivers:
    """Those of this machine. Raises `MissingTool` when there is no clang."""
    for name in (os.environ.get("CXX", ""), "clang++", "c++"):
        path = shutil.which(name) if name else None
        if path and (major := clang_version(path)) >= CLANG_NEEDED:
            return Drivers((path,), (path,), (path,), f"clang {major}")
    spec = importlib.util.find_spec("ziglang")
    if spec is None or not spec.origin:
        raise MissingTool(
            f"clang {CLANG_NEEDED} or newer: not found",
            hint=f"install clang, or: {extras.command('zig')}",
        )
    version = f"ziglang {importlib.metadata.version('ziglang')}"
    zig = (str(Path(spec.origin).parent / "zig"),)
    front, whole = (*zig, "clang"), (*zig, "cc", "-fno-sanitize=all")
    system = shutil.which("cc")
    if sys.platform == "linux" and system:
        # zig would build a C library's start-up code for twenty seconds; the system has one
        own = str(Path(spec.origin).parent / "lib/include")
        native = (*front, "-target", f"{platform.machine()}-linux-gnu", "-isystem", own)
        return Drivers(front, native, (system,), version)
    return Drivers(front, whole, whole, version)


def clang_version(path: str) -> int:
    """LLVM's major version; 0 if it is not clang."""
    found = re.search(r"(Apple )?clang version (\d+)", ask([path, "--version"]))
    # Apple has version numbers of its own: its 16 is LLVM's 17
    return int(found.group(2)) + bool(found.group(1)) if found else 0


def machine_flags() -> tuple[str, ...]:
    """Flags for the processor's conversions between half and float, if needed."""
    return ("-mf16c",) if platform.machine() in ("x86_64", "AMD64") else ()
