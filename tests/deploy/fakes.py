"""Fake releases, each with one fault, installed over a healthy one: the service must be what it was.

.venv/bin/python -m tests.deploy.fakes [NAME...]       prints a table; ends with 1 if one of them was not found out
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import psutil

from toolchain.core.errors import ToolchainError
from toolchain.core.records import record
from toolchain.core.variables import MARK
from toolchain.service import propertylist

from .site import Site, identifier

TIMEOUT_S = 3.0
STABILITY_S = 0.3
EXIT_TIMEOUT_S = 1
_LINE = 2000
FAKES = {
    "list": "not an Ollama: Expected `object`, got `array`",
    "null-count": "got `null`",
    "text-count": "got `str`",
    "nan-count": "not an Ollama",
    "negative-count": "Expected `int` >= 0",
    "huge-count": "not an Ollama",
    "float-count": "got `float`",
    "few-tokens": "generated 2 tokens of 4",
    "text-duration": "got `str`",
    "negative-duration": "Expected `int` >= 0",
    "invalid-utf8": "not an Ollama: 'utf-8' codec",
    "nested": "recursion",
    "stated-twice": "stated twice",
    "empty-text": "generated ''",
    "blank-text": "generated ''",
    "ansi-text": "generated ''",
    "no-line": "not proven that turbo4",
    "use-f16": r"K \(f16\)",
    "early-line": "not proven that turbo4",
    "no-log": "not proven that turbo4",
    "log-deleted": "log cannot be read",
    "log-folder": "log is no file",
    "log-pipe": "log is no file",
    "drip-in-version": "did not answer",
    "drip-in-generate": "not finished|timed out",
    "endless-in-version": "did not answer",
    "endless-in-generate": "too large|not finished",
    "headers-in-version": "did not answer",
    "headers-in-generate": "not an Ollama|no answer|broke off",
    "slow-headers-in-version": "did not answer",
    "slow-headers-in-generate": "no answer: timed out",
    "gigabyte-in-version": "did not answer",
    "gigabyte-in-generate": "more than|too large",
    "bomb-in-generate": "not an Ollama",
    "redirect-in-version": "did not answer",
    "redirect-in-generate": "HTTP status 307",
    "half-closed-in-version": "did not answer",
    "half-closed-in-generate": "no answer",
    "shout-in-generate": "HTTP status 500",
    "colours-in-generate": "sorry sorry",
    "fail-to-generate": "llama runner process has terminated",
    "ignore-sigterm": "ignores SIGTERM",
    "fork": "keeps exiting|is held by|did not answer|then its process ended",
    "daemon": "keeps exiting|is held by|did not answer|then its process ended",
    "helper-listens": "is held by|did not answer",
    "child": "left running",
    "child-at-stop": "left running",
    "leak-children": "leaves a process behind",
    "leak-files": "files open",
    "die-in-window": "ended with: 9",
    "other-version": "answers version '0.0.1'",
    "exit": "keeps exiting",
    "sleep": "did not answer",
    "wrong-port": "did not answer",
}
"""how each behaves, and what is said of it"""


@record
class Outcome:
    """What became of an installation."""

    code: int
    seconds: float
    as_before: bool
    """whether the release before is active and healthy"""
    leftovers: tuple[str, ...]
    clean: bool
    """whether all that was printed is text: no escape sequence, no line of thousands of letters, no traceback"""
    said: str


@contextlib.contextmanager
def short_windows() -> Iterator[None]:
    """A process gets a second to end, not ten."""
    before = propertylist.EXIT_TIMEOUT_S
    propertylist.EXIT_TIMEOUT_S = EXIT_TIMEOUT_S
    try:
        yield
    finally:
        propertylist.EXIT_TIMEOUT_S = before


def install(site: Site, name: str) -> Outcome:
    """Install a fake over what runs at `site`."""
    before = site.status()
    release = site.release(f"fake-{name}", does=name, answers="0.0.1" if name == "other-version" else "")
    printed = io.StringIO()
    code, said, started = 0, "it was taken for healthy", time.monotonic()
    with contextlib.redirect_stderr(printed):
        try:
            short = site.configured(health_timeout_s=TIMEOUT_S, stability_s=STABILITY_S)
            type(site)(site.folder, short.config).install(release)
        except ToolchainError as error:
            code, said = error.exit_code, error.message
        except Exception:
            code, said = 1, traceback.format_exc()
    seconds = time.monotonic() - started
    after = site.status()
    text = printed.getvalue() + said
    return Outcome(
        code=code,
        seconds=seconds,
        as_before=(after.active, after.healthy, after.releases) == (before.active, True, before.releases),
        leftovers=tuple(_leftovers(site, identifier(release))),
        clean=not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]|Traceback", text)
        and max(map(len, text.splitlines())) < _LINE,
        said=said,
    )


def most_seconds(name: str) -> float:
    """How long it may take: the check, stops that are waited for, what must settle, and the parent's own check."""
    settling = 5.0 if name in ("child", "child-at-stop", "leak-children") else 0.0
    return TIMEOUT_S + 1 + settling + 2 * EXIT_TIMEOUT_S + STABILITY_S + 6


def _leftovers(site: Site, name: str) -> Iterator[str]:
    """Processes of a fake, by its folder in their environment or command line, whatever the toolchain says of them."""
    folder = str(site.prefix.release(name))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(MARK) == folder or any(word.startswith(folder) for word in process.cmdline()):
                yield f"{process.pid}: {' '.join(process.cmdline())}"


def main(names: list[str]) -> int:
    """Install them all, print the table, and return how many were not as they should be."""
    wrong = 0
    with short_windows(), tempfile.TemporaryDirectory(prefix="fakes-") as folder:
        site = Site.make(Path(folder), health_timeout_s=15)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                site.install(site.release("good"))
            print("| fake | code | seconds | parent active | left over | said |\n|---|---|---|---|---|---|")  # noqa: T201
            for name in names or FAKES:
                done = install(site, name)
                right = (done.code, done.as_before, done.leftovers, done.clean) == (51, True, (), True)
                right = right and bool(re.search(FAKES[name], done.said)) and done.seconds < most_seconds(name)
                wrong += not right
                said = done.said.splitlines()[0].partition(": ")[2][:110] if done.code else done.said
                row = [name, str(done.code), f"{done.seconds:.1f}", "yes" if done.as_before else "NO"]
                row += [", ".join(done.leftovers) or "none", said + ("" if right else f"  <-- WRONG {done}")]
                print(f"| {' | '.join(row)} |", flush=True)  # noqa: T201
        finally:
            site.close()
    print(f"{wrong} of {len(names or FAKES)} wrong")  # noqa: T201
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
