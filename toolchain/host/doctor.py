"""Which requirements this machine meets, and how to install what is missing."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

from ..build import apple, platform_name, tools
from ..core import extras
from ..core.config import Config
from ..core.errors import MissingTool
from ..core.records import record

_GO_NEEDED = "1.26"
"""required by the newest known Ollama; a build reads the tree's own go.mod"""
_PYTHON_NEEDED = "3.11"


@record
class Requirement:
    """One requirement: whether it is met and, if not, what to do."""

    name: str
    ok: bool
    found: str
    """version, size or kind; empty when it is missing"""
    needed: str
    where: str = ""
    hint: str = ""


class Requirements(tuple[Requirement, ...]):
    """All requirements that were checked."""

    def failure(self) -> MissingTool | None:
        """The error for missing requirements, with the first one's hint; None if all are met."""
        missing = [item for item in self if not item.ok]
        if not missing:
            return None
        return MissingTool(f"missing: {', '.join(item.name for item in missing)}", hint=missing[0].hint)


def doctor(config: Config) -> Requirements:
    """Check every tool, the disk, the platform and the service manager. Changes nothing except zig's wrappers."""
    workspace = Path(config.workspace).expanduser().absolute()
    kind, cc, cxx = tools.compilers(config.build, workspace)
    found = [_platform(), _python(), *map(_tool, (tools.git(), tools.cmake(), tools.ninja(), tools.go(_GO_NEEDED)))]
    found += [_tool(cc, f"a C compiler ({kind})"), _tool(cxx, f"a C++ compiler ({kind})")]
    found += [_extras(), _disk(workspace, config.build.min_free_gb), _launchd(config)]
    if sys.platform == "darwin":
        found += [_program("codesign", "signs the build", apple.TOOLS_HINT), *_mac()]
    return Requirements(found)


def _mac() -> tuple[Requirement, ...]:
    """Apple's compiler, the architecture that this process has, and the GPU that it gets."""
    tools_problem, hint = apple.tools_problem()
    translated = apple.translated()
    metal = apple.metal_problem()
    return (
        Requirement(
            name="developer tools",
            ok=not tools_problem,
            found=tools_problem or "they compile",
            needed="Xcode or its command line tools, with the licence agreed to",
            hint=hint,
        ),
        Requirement(
            name="native process",
            ok=not translated,
            found="Rosetta" if translated else "native",
            needed="no Rosetta",
            hint=apple.NATIVE_HINT if translated else "",
        ),
        Requirement(
            name="Metal",
            ok=not metal,
            found=f"{metal}, in {apple.session()}" if metal else "a device",
            needed="a Metal device in this context",
            hint=apple.METAL_HINT if metal else "",
        ),
    )


def _tool(tool: tools.Tool, needed: str = "") -> Requirement:
    return Requirement(
        name=tool.name,
        ok=tool.ok,
        found=tool.version,
        needed=needed or (f">= {tool.needed}" if tool.needed else "any"),
        where=tool.path if tool.version else "",
        hint="" if tool.ok else tool.hint,
    )


def _platform() -> Requirement:
    name = platform_name()
    ok = name == "macos-arm64" or name.startswith("linux-")
    hint = "" if ok else "Linux, or macOS on Apple silicon (not a Python that runs under Rosetta)"
    return Requirement(name="platform", ok=ok, found=name, needed="linux or macos-arm64", hint=hint)


def _python() -> Requirement:
    ok = sys.version_info >= tuple(map(int, _PYTHON_NEEDED.split(".")))
    return Requirement(
        name="python", ok=ok, found=platform.python_version(), needed=f">= {_PYTHON_NEEDED}", where=sys.executable
    )


def _extras() -> Requirement:
    present = extras.installed()
    return Requirement(
        name="extras", ok=True, found=", ".join(present) or "none", needed="none, until a task needs one"
    )


def _disk(workspace: Path, needed_gb: float) -> Requirement:
    present_folder = next(folder for folder in (workspace, *workspace.parents) if folder.is_dir())
    free = shutil.disk_usage(present_folder).free / 1e9
    ok = free >= needed_gb
    return Requirement(
        name="disk",
        ok=ok,
        found=f"{free:.1f} GB free",
        needed=f">= {needed_gb:g} GB",
        where=str(workspace),
        hint="" if ok else "free some space, or set workspace to another disk",
    )


def _launchd(config: Config) -> Requirement:
    if config.deploy.service_manager in ("emulator", "standin") or (
        config.deploy.service_manager == "auto" and sys.platform != "darwin"
    ):
        return Requirement(name="launchctl", ok=True, found="the emulator", needed="launchd on macOS")
    return _program("launchctl", "launchd on macOS", "set deploy.service_manager=emulator on a machine without launchd")


def _program(name: str, needed: str, hint: str) -> Requirement:
    where = shutil.which(name) or ""
    return Requirement(
        name=name,
        ok=bool(where),
        found="present" if where else "",
        needed=needed,
        where=where,
        hint="" if where else hint,
    )
