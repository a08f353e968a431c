"""Compiler flags for our sources, outside of a build."""

from __future__ import annotations

import re

from ..series.patched import Patched

CPP = ("-std=gnu++17", "-include", "memory")
"""upstream builds its Metal files with libc++ only, whose headers include more of each other"""
_DEFINED = ("-D_GNU_SOURCE", '-DGGML_VERSION="0"', '-DGGML_COMMIT="0"')
_CMAKE = re.compile(r"target_compile_definitions\(\s*\S+\s+\w+\s+(\w+)\s*\)")


def defined(patched: Patched) -> list[str]:
    """The macros that our lines of the build define, and those of upstream's build that its sources need."""
    ours = [path for path in patched.own if path.endswith("CMakeLists.txt")]
    return [*_DEFINED, *(f"-D{name}" for path in ours for name in _CMAKE.findall(patched.own_text(path)))]
