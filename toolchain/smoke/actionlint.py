"""actionlint: the syntax of workflows, the inputs of common actions, and run steps by shellcheck."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence

from ..core import process
from .findings import Fault, NotChecked
from .tree import File

_TIMEOUT_S = 120.0


def faults(workflows: Sequence[File]) -> Iterator[Fault | NotChecked]:
    """What it finds in these workflows."""
    if not workflows:
        return
    if not shutil.which("actionlint"):
        yield NotChecked(
            what=f"{len(workflows)} workflows with actionlint",
            why="actionlint is missing",
            hint="install actionlint (macOS: brew install actionlint; .ci/run builds it with go)",
        )
        return
    argv = ["actionlint", "-no-color", "-pyflakes=", "-format", "{{json .}}", *(file.name for file in workflows)]
    done = process.capture(argv, cwd=workflows[0].root, check=False, timeout=_TIMEOUT_S)
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError:
        yield Fault(
            path=workflows[0].name, reason=f"actionlint ended with {done.returncode}: {done.error_text.strip()}"
        )
        return
    for one in found:
        yield Fault(path=one["filepath"], line=one["line"], reason=f"actionlint: {one['message']} [{one['kind']}]")
