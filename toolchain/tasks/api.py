"""`./inv api`: the C surface of llama.cpp."""

from __future__ import annotations

from ..core.run import Run
from ..upstream import surface
from .command import Group
from .flags import SOURCES

group = Group("api", default="diff")

_TREE = "branch, tag, build or commit of llama.cpp, a folder, or PATH@REF"
_PLATFORM = "macos-arm64, linux-x86_64 or linux-aarch64"


@group.task("llama_cpp", "workspace", tree=f"{_TREE}; empty: HEAD", platform=_PLATFORM)
def snapshot(run: Run, tree: str = "", platform: str = surface.PLATFORM) -> None:
    """What llama.cpp's public headers declare."""
    run.finish(surface.take(run, tree, platform))


@group.task(
    *SOURCES,
    old=f"{_TREE}, or ollama@REF; empty: the one that Ollama is built with",
    new=f"{_TREE}, or ollama@REF; empty: HEAD",
    platform=_PLATFORM,
    surface_only="ignore Ollama: everything counts as used",
)
def diff(run: Run, old: str = "", new: str = "", platform: str = surface.PLATFORM, surface_only: bool = False) -> None:
    """What changed in the C surface, for Ollama."""
    run.finish(surface.compare(run, old, new, platform, surface_only=surface_only))
