"""All checks of the repository."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from ..core.console import Console
from . import actionlint, hygiene, parsing, secretscan, shell, tree, workflows
from .findings import Fault, FilesChecked, NotChecked


def check(console: Console, root: Path) -> FilesChecked:
    """Check every file of the repository at `root`.

    Raises `NotARepository` when git refuses the repository. A tool that is missing is no error: the result lists what
    was not checked for want of it.
    """
    started = time.monotonic()
    with console.step("files") as step:
        files = tree.files(root)
        step.update(detail=f"{len(files)} files")
    found: list[Fault | NotChecked] = []
    for title, faults in _checks(files):
        with console.step(title):
            found += faults
    findings = sorted((one for one in found if isinstance(one, Fault)), key=lambda one: (one.path, one.line))
    return FilesChecked(
        files=len(files),
        findings=tuple(dict.fromkeys(findings)),
        not_checked=tuple(one for one in found if isinstance(one, NotChecked)),
        seconds=round(time.monotonic() - started, 2),
    )


def _checks(files: list[tree.File]) -> Iterator[tuple[str, Iterator[Fault | NotChecked]]]:
    jobs = [file for file in files if workflows.is_workflow(file)]
    yield "parsing", (fault for file in files for fault in parsing.faults(file))
    yield "hygiene", (fault for file in files for fault in hygiene.faults(file))
    yield "shell scripts", shell.faults(files)
    yield "workflows", (fault for file in jobs for fault in workflows.faults(file))
    yield "actionlint", actionlint.faults(jobs)
    yield "secrets", secretscan.faults(files)
