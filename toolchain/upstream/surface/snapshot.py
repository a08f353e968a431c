"""The C surface of a tree as a snapshot, cached in the workspace by commit."""

from __future__ import annotations

from pathlib import Path

from ...core import extras
from ...core.errors import RecordError
from ...core.records import read, write
from . import trees
from .surface import FORMAT, Snapshot
from .trees import CommitTree, SourceTree

FOLDER = "api"
"""of the workspace, where snapshots are kept"""

PLATFORM = "macos-arm64"
"""the default platform"""


def take(tree: SourceTree, platform: str = PLATFORM) -> Snapshot:
    """Parse the public headers of a tree. Raises `HeaderInvalid` with file and line, `MissingExtra`."""
    extras.require("clang", "reading headers")
    from . import clang

    layout, files = trees.headers(tree)
    parsed = clang.parse(files, list(files), (layout.llama, layout.ggml, layout.mtmd), platform)
    return Snapshot(
        format=FORMAT,
        platform=platform,
        origin=tree.origin,
        describe=tree.describe,
        headers=tuple(files),
        declared=tuple(parsed.declared[key] for key in sorted(parsed.declared)),
        enums=tuple(parsed.enums[name] for name in sorted(parsed.enums)),
        structs=tuple(parsed.structs[name] for name in sorted(parsed.structs)),
        macros=tuple(parsed.macros[name] for name in sorted(parsed.macros)),
    )


def kept(tree: SourceTree, workspace: Path, platform: str = PLATFORM) -> Snapshot:
    """The cached snapshot of a commit, taken if missing; a folder's is taken each time."""
    if not isinstance(tree, CommitTree):
        return take(tree, platform)
    path = workspace / FOLDER / f"{tree.origin}-{platform}.json"
    try:
        found = read(path, Snapshot)
        if (found.format, found.origin, found.platform) == (FORMAT, tree.origin, platform):
            return found
    except RecordError:
        pass  # missing, or of another version
    found = take(tree, platform)
    write(path, found)
    return found
