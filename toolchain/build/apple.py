"""What a Mac needs before it can compile our kernels or use its GPU, asked of Apple's own programs.

Each check names what is missing and how to get it. None is asked on another system.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from ..core.errors import GpuUnavailable, MissingTool, ToolchainError, Translated
from ..core.process import ask, run
from ..core.records import record

LICENCE = re.compile(r"agree(?:d|ing)? to the Xcode[\w/ ]{0,30} license|xcodebuild -license", re.IGNORECASE)
"""in the output of every one of Apple's compilers, which end with 69, until the licence is agreed to"""
LICENCE_HINT = "sudo xcodebuild -license accept"
TOOLS_HINT = "xcode-select --install"
NATIVE_HINT = "remove .venv and use a Python for arm64, in a terminal that is not opened with Rosetta"
METAL_HINT = (
    "use a terminal of the user who is logged in at the screen, not SSH or a daemon; a virtual machine needs a "
    "graphics device"
)
LICENCE_CODE = 69
_NO_TOOLS = re.compile(r"invalid active developer path|no developer tools were found", re.IGNORECASE)
_TIMEOUT_S = 60.0
_FRAMEWORKS = "/System/Library/Frameworks"
# In a process of its own, since a framework may end one that has no session. CoreGraphics must be loaded before Metal
# names a default device.
_METAL = """
import ctypes, sys
ctypes.CDLL(sys.argv[1] + "/CoreGraphics.framework/CoreGraphics")
metal = ctypes.CDLL(sys.argv[1] + "/Metal.framework/Metal")
metal.MTLCreateSystemDefaultDevice.restype = ctypes.c_void_p
print("device" if metal.MTLCreateSystemDefaultDevice() else "none")
"""


@record
class Session:
    """Where this process runs: whether through SSH, and launchd's name of its session, such as Aqua or Background;
    empty if unknown."""

    ssh: bool
    manager: str

    def __str__(self) -> str:
        words = ["an SSH session"] if self.ssh else []
        words += [f"launchd's {self.manager} session"] if self.manager else []
        return ", in ".join(words) or "an unknown session"


def session() -> Session:
    """The session of this process."""
    return Session(ssh="SSH_CONNECTION" in os.environ, manager=ask(["launchctl", "managername"]).strip())


def translated() -> bool:
    """Whether this process runs under Rosetta."""
    return ask(["sysctl", "-n", "sysctl.proc_translated"]).strip() == "1"


def tools_problem() -> tuple[str, str]:
    """Why Apple's compiler cannot be used, and what to do; empty if it can.

    Without developer tools its programs are stubs that open a dialog, so xcode-select is asked first.
    """
    if not ask(["xcode-select", "-p"]).strip():
        return "no developer tools: xcode-select -p names no folder", TOOLS_HINT
    try:
        done = run(["xcrun", "--sdk", "macosx", "clang", "--version"], check=False, timeout=_TIMEOUT_S)
    except ToolchainError as error:
        return f"no developer tools: {error.message}", TOOLS_HINT
    said = (done.output.strip().splitlines() or ["no message"])[0]
    if done.returncode == LICENCE_CODE or LICENCE.search(done.output):
        return f"the licence of Xcode is not agreed to: {said}", LICENCE_HINT
    if done.returncode != 0 or _NO_TOOLS.search(done.output):
        return f"no developer tools: xcrun clang ended with {done.returncode}: {said}", TOOLS_HINT
    return "", ""


def require_tools() -> None:
    """Raise `MissingTool` when Apple's compiler is missing or its licence not agreed to, `Translated` under Rosetta."""
    require_native()
    problem, hint = tools_problem()
    if problem:
        raise MissingTool(problem, hint=hint)


def require_native() -> None:
    """Raise `Translated` under Rosetta."""
    if translated():
        raise Translated(
            f"{sys.executable} runs under Rosetta, as if this Mac had an Intel chip",
            hint=NATIVE_HINT,
        )


def metal_problem(frameworks: Path = Path(_FRAMEWORKS)) -> str:
    """Why this process gets no Metal device; empty if it gets one."""
    try:
        done = run([sys.executable, "-I", "-c", _METAL, str(frameworks)], check=False, timeout=_TIMEOUT_S)
    except ToolchainError as error:
        return error.message
    said = (done.output.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
    if done.returncode == 0 and said == "device":
        return ""
    return "MTLCreateSystemDefaultDevice returned nil" if said == "none" else f"Metal cannot be loaded: {said}"


def require_metal(frameworks: Path = Path(_FRAMEWORKS)) -> None:
    """Raise `GpuUnavailable` when this process gets no Metal device, `Translated` under Rosetta."""
    require_native()
    if problem := metal_problem(frameworks):
        raise GpuUnavailable(
            f"no Metal device in this context ({session()}): {problem}",
            hint=METAL_HINT,
        )
