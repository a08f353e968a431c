"""How the test suite is run."""

from __future__ import annotations

import shlex
import sys

from ..core import extras, process
from ..core.checkout import ROOT
from ..core.console import Console
from ..core.errors import ConfigError
from ..core.records import record
from ..text.dispatch import as_text


@record
class SuiteRun:
    """A run in which every test passed; another one raises."""

    passed: bool
    seconds: float
    summary: str
    """pytest's last line"""


@as_text.register
def _suite_run(ran: SuiteRun) -> str:
    """pytest's own summary."""
    return ran.summary


def run(console: Console, *, fast: bool, sweeps: bool, args: str) -> SuiteRun:
    """Run pytest, with its output as notes. Raises `CommandFailed` when a test fails."""
    argv = command_line(fast=fast, sweeps=sweeps, args=args)
    done = process.run(argv, cwd=ROOT, on_line=console.note, what="the test suite")
    return SuiteRun(passed=True, seconds=done.seconds, summary=done.output.strip().splitlines()[-1])


def command_line(*, fast: bool, sweeps: bool, args: str) -> list[str]:
    """pytest's command line; `args` are further arguments, quoted as for a shell; they take precedence.

    Raises `ConfigError` for an unclosed quotation mark, `MissingExtra`.
    """
    extras.require("dev", "the test suite")
    try:
        more = shlex.split(args)
    except ValueError as error:
        raise ConfigError(f"--args {args!r}: {error}", hint="""--args '-k "one or another"'""") from error
    # a file's tests share what they build, so they stay on one processor; tests/conftest.py orders the files
    words = [
        "-n",
        "auto",
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
        *(["-m", "not slow"] if fast else ()),
        *(["--sweeps"] if sweeps else ()),
    ]
    return [sys.executable, "-P", "-m", "pytest", *words, *more]
