"""Shell scripts: parsed by the shells that run them, and read by shellcheck."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence

from ..core import process
from .findings import Fault, NotChecked
from .tree import File

_POSIX = ("sh", "dash")
_SHELLS = (*_POSIX, "bash")
_LINE = re.compile(r"(?:line )?(\d+): (.+)")
_SHELLCHECK = re.compile(r"^(.+?):(\d+):\d+: \w+: (.+)$", re.MULTILINE)
_TIMEOUT_S = 60.0


def is_script(file: File) -> bool:
    """Whether a shell runs it."""
    if file.suffix == ".j2":  # a script once it is rendered
        return False
    return file.interpreter in _SHELLS or (file.suffix == ".sh" and not file.interpreter)


def faults(files: Sequence[File]) -> Iterator[Fault | NotChecked]:
    """What the shells and shellcheck say about all scripts."""
    scripts = [file for file in files if is_script(file)]
    for shell in _SHELLS:
        chosen = [file for file in scripts if shell in _interpreters(file)]
        if chosen and not shutil.which(shell):
            yield NotChecked(
                what=f"{len(chosen)} shell scripts with {shell}", why=f"{shell} is missing", hint=f"install {shell}"
            )
            continue
        for file in chosen:
            yield from _parsed(shell, file)
    if scripts:
        yield from _shellcheck(scripts)


def _interpreters(file: File) -> tuple[str, ...]:
    """A script for sh must parse in dash as well: macOS's sh is bash, which takes more than a POSIX shell does."""
    return ("bash",) if file.interpreter == "bash" else _POSIX


def _parsed(shell: str, file: File) -> Iterator[Fault]:
    done = process.capture([shell, "-n", file.path], check=False, timeout=_TIMEOUT_S)
    if done.returncode:
        said = done.error_text.strip().replace(f"{file.path}: ", "")
        place = _LINE.search(said)
        yield Fault(
            path=file.name,
            line=int(place[1]) if place else 0,
            reason=f"does not parse in {shell}: {place[2] if place else said}",
        )


def _shellcheck(scripts: Sequence[File]) -> Iterator[Fault | NotChecked]:
    if not shutil.which("shellcheck"):
        yield NotChecked(
            what=f"{len(scripts)} shell scripts with shellcheck",
            why="shellcheck is missing",
            hint="install shellcheck (Debian: apt install shellcheck; macOS: brew install shellcheck)",
        )
        return
    names = [f"./{file.name}" for file in scripts]
    root = scripts[0].root
    done = process.capture(["shellcheck", "--format=gcc", *names], cwd=root, check=False, timeout=_TIMEOUT_S)
    found = _SHELLCHECK.findall(done.text)
    for name, line, reason in found:
        yield Fault(path=name.removeprefix("./"), line=int(line), reason=f"shellcheck: {reason}")
    if done.returncode and not found:
        yield Fault(path=scripts[0].name, reason=f"shellcheck ended with {done.returncode}: {done.error_text.strip()}")
