"""A run's output: progress for people on stderr, one JSON document on stdout.

Only the result goes to stdout. On a terminal rich draws the progress; elsewhere it is plain lines,
at most one every few seconds for a step that counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .records import to_json, to_json_line

_PLAIN_INTERVAL_S = 5.0


class Step:
    """A running step; `update` moves its bar, `detail` its text."""

    def __init__(self, report: Callable[[float | None, float | None, str], None]) -> None:
        self._report = report
        self.seconds = 0.0

    def update(self, done: float | None = None, total: float | None = None, detail: str = "") -> None:
        """Report that `done` of `total` units are finished."""
        self._report(done, total, detail)


class _Stderr:
    """stderr, looked up at each call. Output that cannot be written is lost: it must not end what a run is doing.

    That is so for a pipe whose reader has gone, a terminal that was closed, and a file on a full disk.
    """

    def _present(self) -> Any:
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)

    @property
    def rich_proxied_file(self) -> _Stderr:
        """This, for rich, which looks through its own stand-in for stderr with it."""
        return self

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError, ValueError, AttributeError):  # ValueError: closed; AttributeError: there is none
            self._present().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError, ValueError, AttributeError):
            self._present().flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._present(), name)


class Console:
    """Messages and progress on stderr, the result on stdout: JSON when `json` is set, else from `as_text`."""

    def __init__(self, *, json: bool = False, as_text: Callable[[Any], str] = to_json) -> None:
        self.json = json
        self._as_text = as_text
        self.answered = False
        # Messages are text of others as well: [x] and :x: in them mean nothing.
        self._rich = RichConsole(
            file=cast(IO[str], _Stderr()), highlight=False, soft_wrap=True, markup=False, emoji=False
        )
        self._progress: Progress | None = None

    def note(self, message: str) -> None:
        """One line of information."""
        self._print(message)

    def _print(self, message: str, style: str = "") -> None:
        # what is no UTF-8, as in a name, as an escape
        self._rich.print(message.encode(errors="backslashreplace").decode(), style=style or None)

    def warn(self, message: str) -> None:
        """One line of warning."""
        self._print(f"warning: {message}", "yellow")

    def error(self, message: str) -> None:
        """The message that a failed run ends with."""
        self._print(f"error: {message}", "bold red")

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a piece of work in progress, then how long it took."""
        started = time.monotonic()
        drawn = self._rich_step(title) if self._rich.is_terminal else self._plain_step(title)
        with drawn as step:
            yield step
            step.seconds = time.monotonic() - started

    @contextmanager
    def _plain_step(self, title: str) -> Iterator[Step]:
        started = last = time.monotonic()
        self.note(f"{title} ...")

        def report(done: float | None, total: float | None, detail: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PLAIN_INTERVAL_S:
                last = now
                share = f" {done:g}/{total:g}" if done is not None and total else ""
                self.note(f"{title}:{share} {detail}".rstrip())

        try:
            yield Step(report)
        except BaseException:
            self.note(f"{title}: failed after {time.monotonic() - started:.1f} s")
            raise
        self.note(f"{title}: done in {time.monotonic() - started:.1f} s")

    @contextmanager
    def _rich_step(self, title: str) -> Iterator[Step]:
        outermost = self._progress is None
        if self._progress is None:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[detail]}", markup=False),
                TimeElapsedColumn(),
                console=self._rich,
                transient=True,
            )
            self._progress.start()
        progress, started = self._progress, time.monotonic()
        task = progress.add_task(title, total=None, detail="")

        def report(done: float | None, total: float | None, detail: str) -> None:
            progress.update(task, completed=done, total=total, detail=detail[:60])

        try:
            yield Step(report)
        except BaseException:
            self._print(f"✗ {title} ({time.monotonic() - started:.1f} s)", "red")
            raise
        else:
            self._print(f"✓ {title} ({time.monotonic() - started:.1f} s)", "green")
        finally:
            progress.remove_task(task)
            if outermost:
                progress.stop()
                self._progress = None

    def event(self, record: Any) -> None:
        """Print one of many results as it comes: with `json` as one line of JSON."""
        self._answer(to_json_line(record) if self.json else self._as_text(record).rstrip("\n") + "\n")

    def result(self, record: Any) -> None:
        """Print the task's result."""
        self._answer(to_json(record) if self.json else self._as_text(record).rstrip("\n") + "\n")

    def _answer(self, text: str) -> None:
        """Print on stdout. A letter that it cannot show, as of a name that is no UTF-8, is printed as an escape."""
        self.answered = True
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
