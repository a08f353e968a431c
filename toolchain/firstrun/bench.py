"""What an area examines a machine with: a service, a port and folders of its own, and programs whose output is kept."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ..core import process
from ..core.errors import ToolchainError
from ..core.records import record
from ..core.run import Run
from ..stages import Release

_TIMEOUT_S = 60.0
NOT_STARTED = -1


@record
class Evidence:
    """A program's run: its command line, exit code (-1: it could not be started, or took too long), and raw output."""

    command: str
    code: int
    seconds: float
    output: str


@dataclass(kw_only=True)
class Bench:
    """One run's means. `run` has its own label, prefix, port and workspace, all below `folder`.

    Whatever an area makes outside of `folder` (a loaded job, a property list, a process) is undone by a callback on
    `cleanup`, registered before it is made.
    """

    run: Run
    folder: Path
    cleanup: ExitStack
    kept: list[Evidence] = field(default_factory=list)
    """every program that was run, in order"""
    release: Release | None = None
    """what the build area built, for those after it"""
    no_release: str = ""
    """why there is none"""

    def call(
        self,
        argv: Sequence[str | Path],
        *,
        timeout: float = _TIMEOUT_S,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Evidence:
        """Run a program to its end, whatever that is; stdout and stderr as one. Never raises for its failure."""
        started = time.monotonic()
        try:
            done = process.run(argv, timeout=timeout, env=env, cwd=cwd, check=False)
            code, output = done.returncode, done.output
        except ToolchainError as error:
            code, output = NOT_STARTED, error.message
        seen = Evidence(
            command=shlex.join(map(str, argv)), code=code, seconds=round(time.monotonic() - started, 3), output=output
        )
        self.kept.append(seen)
        return seen
