"""How the test suite is run."""

from __future__ import annotations

import shlex
import sys

from ..core.errors import ConfigError


def command_line(*, fast: bool, args: str) -> list[str]:
    """pytest's command line; `args` are further words for it, quoted as for a shell, and what they say wins.

    Raises `ConfigError` where a quotation mark is left open.
    """
    try:
        more = shlex.split(args)
    except ValueError as error:
        raise ConfigError(f"--args {args!r}: {error}", hint="""--args '-k "one or another"'""") from error
    # a file's tests share what they build, so they stay on one processor
    words = ["-n", "auto", "--dist", "loadfile", *(["-m", "not slow"] if fast else ())]
    return [sys.executable, "-m", "pytest", *words, *more]
