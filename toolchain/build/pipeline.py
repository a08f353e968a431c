"""Ollama's own build of a scratch tree, from the tools to a release directory."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ..core.checkout import ROOT
from ..core.config import Config
from ..core.console import Console
from ..core.errors import BuildFailed, DiskFull, EraNotServed
from ..sources import eras, locked
from ..stages import Release, Rendered, Scratch, Sources
from . import apple, embedded, release, steps, tools


def build(
    scratch: Scratch,
    sources: Sources,
    rendered: Rendered,
    config: Config,
    console: Console,
    *,
    workspace: Path,
    extra_targets: Sequence[str] = (),
) -> Release:
    """Build the scratch trees and return the release; its directory is `release_dir(workspace, release)`.

    Builds incrementally. `extra_targets` are further programs of llama.cpp (llama-bench, llama-perplexity); they are in
    `program_dir`, not in the release. Raises `MissingTool`,
    `Translated`, `DiskFull`, `BuildFailed`, `EraNotServed`, `ConfigError`, `LockHeld`.
    """
    with locked(scratch.root):
        plan = plan_of(scratch, sources, config, workspace)
        flags = steps.configure(plan, console)
        steps.compile_server(plan, extra_targets, console)
        steps.install_server(plan, console)
        if sys.platform == "darwin" and plan.preset:
            embedded.require(plan.stage, plan.llama_cpp)
        steps.build_go(plan, console)
        if sys.platform == "darwin" and not plan.preset:
            embedded.require(plan.go_binary.parent, plan.llama_cpp)
        draft = Release(
            id="",
            version=plan.version,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            platform=platform_name(),
            ollama_commit=scratch.ollama_commit,
            llama_cpp_commit=scratch.llama_cpp_commit,
            llama_cpp_build=sources.pin.build,
            series_sha256=rendered.series_sha256,
            cache_types=rendered.cache_types,
            model_option=rendered.model_option,
            era=sources.era,
            tools=plan.tools.versions(),
            flags={"preset": plan.preset, "compiler": plan.tools.kind, "go -ldflags": steps.link_flags(plan), **flags},
            files={},
        )
        return release.assemble(workspace, draft, lambda folder: _fill(folder, plan, console))


def plan_of(scratch: Scratch, sources: Sources, config: Config, workspace: Path) -> steps.BuildPlan:
    """Check tree, tools and disk before the build starts. Raises what `build` raises."""
    era = eras.of(sources)
    if era.unbuilt:
        raise EraNotServed(f"{eras.sentence(sources)}: {era.unbuilt}", hint=era.hint)
    if sys.platform == "darwin":
        apple.require_tools()
    preset = steps.preset_of(config, scratch.ollama, era.native)
    try:
        go_mod = (scratch.ollama / "go.mod").read_text(encoding="utf-8")
    except OSError as error:
        raise BuildFailed(f"{scratch.ollama}: no go.mod: {error}", hint="check the ref of Ollama") from error
    found = tools.toolset(config.build, go_mod, workspace)
    workspace.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(workspace).free / 1e9
    if free < config.build.min_free_gb:
        raise DiskFull(
            f"{workspace}: {free:.1f} GB free, a build needs {config.build.min_free_gb:g} GB",
            hint="free some space, or set workspace to another disk or build.min_free_gb lower",
        )
    return steps.BuildPlan(
        ollama=scratch.ollama,
        llama_cpp=scratch.llama_cpp,
        llama_cpp_commit=sources.llama_cpp.commit,
        llama_cpp_build=sources.pin.build,
        native=era.native,
        preset=preset,
        version=version_of(sources, config),
        jobs=config.build.jobs or os.cpu_count() or 1,
        offline=config.sources.offline,
        folder=workspace / "build" / f"{scratch.root.name}-{preset or 'go'}-{found.kind}",
        logs=workspace / "logs",
        run=datetime.now(UTC).strftime("%Y%m%d-%H%M%S"),
        tools=found,
    )


def version_of(sources: Sources, config: Config) -> str:
    """The version that /api/version will report: upstream's with our suffix, such as 0.33.0-turbo1."""
    name = sources.ollama.describe
    upstream = name[1:] if name.startswith("v") and name[1:2].isdigit() else f"0.0.0-{name}"
    return f"{upstream}-{config.build.suffix}"


def program_dir(plan: steps.BuildPlan) -> Path:
    """The folder of the programs that `extra_targets` named."""
    return plan.cmake_folder / "bin"


def platform_name() -> str:
    """As in linux-x86_64 or macos-arm64."""
    return f"{'macos' if sys.platform == 'darwin' else sys.platform}-{platform.machine().lower()}"


def _fill(folder: Path, plan: steps.BuildPlan, console: Console) -> None:
    shutil.copytree(plan.stage, folder, symlinks=True, dirs_exist_ok=True)
    (folder / "bin").mkdir(exist_ok=True)
    shutil.copy2(plan.go_binary, folder / "bin" / "ollama")
    steps.sign(plan, folder, console)
    licenses = folder / "licenses"
    licenses.mkdir()
    for name, tree in (("ollama", plan.ollama), ("llama.cpp", plan.llama_cpp), ("turboquant", ROOT)):
        if (tree / "LICENSE").is_file():
            shutil.copyfile(tree / "LICENSE", licenses / f"{name}.txt")
    if (plan.llama_cpp / "licenses").is_dir():
        shutil.copytree(plan.llama_cpp / "licenses", licenses / "llama.cpp")
