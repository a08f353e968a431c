"""The steps of Ollama's own build: configure, compile and install llama-server, then go build."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..core import process
from ..core.config import Config
from ..core.console import Console
from ..core.errors import BuildFailed, ConfigError, DiskFull
from ..core.records import record, sha256_bytes
from ..sources.eras import Native
from . import apple
from .tools import Toolset

PROBE = "turbo-probe"
"""the series' program that verification runs on the built libraries; a stock tree has none"""
MACOS_TARGET = "14.0"
_SKIP_PATCHES = "OLLAMA_LLAMA_CPP_SKIP_COMPAT_PATCH"
_NINJA_STEP = re.compile(r"\[(\d+)/(\d+)\] (.*)")
_GO_FLAGS = ("-trimpath", "-buildvcs=false")
_NO_MODULE = ("module lookup disabled by GOPROXY=off", "cannot find module providing", "dial tcp", "missing go.sum")


@record
class BuildPlan:
    """Everything that the steps need to know."""

    ollama: Path
    llama_cpp: Path
    llama_cpp_commit: str
    llama_cpp_build: int
    native: Native
    preset: str
    """of CMake; empty: Go compiles everything"""
    version: str
    jobs: int
    offline: bool
    folder: Path
    """build products live here, outside the source trees"""
    logs: Path
    run: str
    """prefix of the log files of this run"""
    tools: Toolset

    @property
    def cmake_folder(self) -> Path:
        """CMake's build tree."""
        return self.folder / self.native.component

    @property
    def sources(self) -> Path:
        """The folder that CMake builds."""
        return self.ollama / self.native.folder

    @property
    def stage(self) -> Path:
        """Where CMake installs to."""
        return self.folder / "stage"

    @property
    def go_binary(self) -> Path:
        """Output of go build."""
        return self.folder / "ollama"

    def log(self, step: str) -> Path:
        """The log file of a step of this run."""
        return self.logs / f"{self.run}-{step}.log"


def preset_of(config: Config, ollama: Path, native: Native) -> str:
    """The CMake preset to use; empty where Go compiles everything. Raises `ConfigError` when the tree has no such
    preset."""
    wanted = config.build.preset
    if wanted == "auto":
        wanted = native.macos if sys.platform == "darwin" else native.linux
    if not wanted:
        return ""
    file = ollama / native.folder / "CMakePresets.json"
    try:
        presets = [preset["name"] for preset in json.loads(file.read_bytes())["configurePresets"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildFailed(f"{file}: no CMake presets: {error}", hint="check the ref of Ollama") from error
    if wanted not in presets:
        raise ConfigError(f"build.preset: {wanted!r} is not a preset of {file}", hint=f"presets: {', '.join(presets)}")
    return wanted


def configure_flags(plan: BuildPlan) -> dict[str, str]:
    """CMake variables on top of the preset.

    MLX is not part of llama/server and need not be turned off. Ollama copies ggml's modules out of the build folder as
    they are, so libraries are linked with the search path of an installation: no other folder of this machine, and not
    the current one. Build number and commit are upstream's: those of the
    scratch tree change with every series, which would rebuild unchanged files.
    """
    if not plan.preset:
        return {}
    llama_cpp = {
        "FETCHCONTENT_SOURCE_DIR_LLAMA_CPP": str(plan.llama_cpp),
        "LLAMA_BUILD_NUMBER": str(plan.llama_cpp_build),
        "LLAMA_BUILD_COMMIT": plan.llama_cpp_commit[:9],
    }
    # Ollama's own CMakeLists.txt makes absolute paths of where to install to
    flags = {
        **(llama_cpp if plan.native.takes_llama_cpp else {"CMAKE_INSTALL_PREFIX": str(plan.stage)}),
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "CMAKE_MAKE_PROGRAM": plan.tools.ninja.path,
        **plan.tools.cmake_variables,
    }
    if _SKIP_PATCHES in (plan.sources / "CMakeLists.txt").read_text(encoding="utf-8"):
        flags[_SKIP_PATCHES] = "ON"
    if plan.tools.kind == "zig":
        flags |= _zig_flags()
    if sys.platform == "darwin":
        flags |= {"CMAKE_OSX_ARCHITECTURES": "arm64", "CMAKE_OSX_DEPLOYMENT_TARGET": MACOS_TARGET}
    return flags


def _zig_flags() -> dict[str, str]:
    """One static llama-server: zig links its C++ library into every shared library, so an exception that leaves one
    is never caught. So there is one instruction set level instead of a library for each CPU."""
    flags = dict.fromkeys(("BUILD_SHARED_LIBS", "GGML_BACKEND_DL", "GGML_CPU_ALL_VARIANTS"), "OFF")
    if platform.machine() == "x86_64":  # this level is called x86-64-v3
        flags |= {f"GGML_{name}": "ON" for name in ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")}
    return flags


def configure(plan: BuildPlan, console: Console) -> dict[str, str]:
    """Run CMake; returns its variables."""
    flags = configure_flags(plan)
    words = ["--preset", plan.preset, "-G", "Ninja", "-B", str(plan.cmake_folder)]
    words += [f"-D{name}={value}" for name, value in flags.items()]
    if plan.preset:
        with console.step(f"configure {plan.native.component}"):
            _run(plan, "configure", [plan.tools.cmake.path, *words], cwd=plan.sources)
    return flags


def compile_server(plan: BuildPlan, extra_targets: Sequence[str], console: Console) -> None:
    """Build the era's targets, the probe and `extra_targets`, if out of date."""
    if not plan.preset:
        return
    targets = [*plan.native.targets, *extra_targets]
    if (plan.llama_cpp / "tools" / PROBE).is_dir():
        targets.append(PROBE)
    words = ["--build", str(plan.cmake_folder), "--parallel", str(plan.jobs), "--target", *targets]
    with console.step(f"build {plan.native.component}") as step:

        def show(line: str) -> None:
            if found := _NINJA_STEP.match(line):
                step.update(float(found.group(1)), float(found.group(2)), found.group(3))

        _run(plan, "compile", [plan.tools.cmake.path, *words], cwd=plan.ollama, on_line=show)


def install_server(plan: BuildPlan, console: Console) -> None:
    """Install what was built and its libraries into an empty stage."""
    shutil.rmtree(plan.stage, ignore_errors=True)
    plan.stage.mkdir(parents=True)
    if not plan.preset:
        return
    words = ["--install", str(plan.cmake_folder), "--prefix", str(plan.stage), "--component", plan.native.component]
    with console.step(f"install {plan.native.component}"):
        _run(plan, "install", [plan.tools.cmake.path, *words], cwd=plan.ollama)


def link_flags(plan: BuildPlan) -> str:
    """Flags for go's linker: strip, and the version that /api/version reports."""
    go_mod = (plan.ollama / "go.mod").read_text(encoding="utf-8")
    found = re.search(r"^module\s+(\S+)", go_mod, re.MULTILINE)
    if not found:
        raise BuildFailed(f"{plan.ollama / 'go.mod'}: has no module line", hint="check the ref of Ollama")
    module = found.group(1)
    return f"-s -w -X={module}/version.Version={plan.version} -X={module}/server.mode=release"


def build_go(plan: BuildPlan, console: Console) -> None:
    """Build the ollama binary. Ollama's Go code needs cgo, on Linux too."""
    words = ["build", *_GO_FLAGS, "-p", str(plan.jobs), "-o", str(plan.go_binary)]
    with console.step("build ollama"):
        argv = [plan.tools.go.path, *words, "-ldflags", link_flags(plan), "."]
        _run(plan, "go", argv, cwd=plan.ollama, env=_go_environment(plan))


def test_go(plan: BuildPlan, package: str, tests: Sequence[str], timeout_s: float) -> str:
    """Run tests of a package of the tree, and return what `go test -json` prints, whatever their outcome.

    With the flags and the environment of `build_go`, so that Go's cache has what that compiled.
    """
    pattern = f"^({'|'.join(tests)})$"
    words = ["test", *_GO_FLAGS, "-p", str(plan.jobs), "-json", "-count=1", "-run", pattern, f"./{package}"]
    return process.run(
        [plan.tools.go.path, *words],
        cwd=plan.ollama,
        env=_go_environment(plan),
        log=plan.log("test"),
        timeout=timeout_s,
        check=False,
    ).output


def _go_environment(plan: BuildPlan) -> dict[str, str]:
    env = {"CC": plan.tools.cc.path, "CXX": plan.tools.cxx.path, "CGO_ENABLED": "1", "GOTOOLCHAIN": "local"}
    if headers := _header_digest(plan):
        env["CGO_CPPFLAGS"] = f"-DTURBOQUANT_HEADERS=0x{headers}"
    if plan.offline:
        env["GOPROXY"] = "off"
    if sys.platform == "darwin":
        minimum = f"-mmacosx-version-min={MACOS_TARGET}"
        frameworks = "-lc++ -framework Metal -framework Foundation -framework Accelerate"
        env |= {
            "GOARCH": "arm64",
            "MACOSX_DEPLOYMENT_TARGET": MACOS_TARGET,
            "CGO_CFLAGS": f"-O3 {minimum}",
            "CGO_CXXFLAGS": f"-O3 {minimum}",
            "CGO_LDFLAGS": f"{frameworks} {minimum}",
        }
    return env


def _header_digest(plan: BuildPlan) -> str:
    """Digest over the headers of llama.cpp that packages of Ollama's compile against; empty for a tree without.

    Go's build cache sees a package's own folder alone, so that it would take up what was compiled against other
    headers. As the value of a macro the digest is seen.
    """
    if plan.native.takes_llama_cpp:
        return ""
    folders = (plan.llama_cpp / "include", plan.llama_cpp / "ggml" / "include")
    headers = sorted(path for folder in folders for path in folder.glob("*.h"))
    return sha256_bytes(b"".join(path.read_bytes() for path in headers))[:12] if headers else ""


def sign(plan: BuildPlan, folder: Path, console: Console) -> None:
    """Sign every program and library of a release ad hoc, libraries first. Does nothing outside macOS."""
    if sys.platform != "darwin":
        return
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    libraries = [path for path in files if path.suffix in (".dylib", ".so")]
    programs = [path for path in files if path not in libraries and os.access(path, os.X_OK)]
    with console.step("sign"):
        for path in (*libraries, *programs):
            _run(plan, "sign", ["codesign", "--force", "--sign", "-", str(path)], cwd=folder)


def _run(
    plan: BuildPlan,
    name: str,
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    log = plan.log(name)
    done = process.run(
        argv, cwd=cwd, env={"NINJA_STATUS": "[%f/%t] ", **(env or {})}, log=log, on_line=on_line, check=False
    )
    if done.returncode == 0:
        return
    tail = "".join(deque(done.output.splitlines(keepends=True), maxlen=200))
    if "No space left on device" in tail or "Disk quota exceeded" in tail:
        raise DiskFull(f"{plan.folder}: the disk is full (log: {log})", hint="free some space; the build resumes")
    why = f"ended with {done.returncode}"
    raise BuildFailed(
        process.describe_failure(done, why=why, what=f"build step {name!r}", cwd=cwd, log=log),
        hint=_hint(plan, name, tail),
    )


def _hint(plan: BuildPlan, name: str, tail: str) -> str:
    if name == "go" and any(sign in tail for sign in _NO_MODULE):
        return f"Go modules are missing from the module cache: run once online, or: cd {plan.ollama} && go mod download"
    if apple.LICENCE.search(tail):
        return f"the licence of Xcode is not agreed to: {apple.LICENCE_HINT}"
    if name == "compile":
        return "read the first error in the log; if the series applies but does not compile, it needs another edit"
    return "the log has details"
