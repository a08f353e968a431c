"""From the command line to a stage: what every task shares, and how a run ends.

A task's body gets a `Run` (configuration and console). Around it `command` adds the flags that all tasks share,
turns a `ToolchainError` into one message and its exit code, and leaves the traceback to bugs.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit, ParseError
from invoke.program import Program
from invoke.tasks import Task, task

from .. import __version__
from ..core.config import load
from ..core.console import Console
from ..core.errors import ConfigError, ToolchainError
from ..core.run import Run

FLAGS: dict[str, tuple[str, str]] = {
    "ollama": ("sources.ollama", "Ollama: a URL or a local git repository"),
    "ollama_ref": ("sources.ollama_ref", "branch, tag or commit of Ollama"),
    "llama_cpp": ("sources.llama_cpp", "llama.cpp: a URL or a local git repository"),
    "llama_cpp_ref": ("sources.llama_cpp_ref", "commit of llama.cpp instead of the pinned one"),
    "fork": ("fork.origin", "fork of llama.cpp: a URL or a local git repository"),
    "prefix": ("deploy.prefix", "folder of the installation"),
    "port": ("deploy.port", "port of the service"),
    "kv_cache_type": ("deploy.kv_cache_type", "cache type of the service, or K:V"),
    "workspace": ("workspace", "folder for mirrors, scratch trees and builds"),
}
"""Flags that stand for a setting: name -> its key and help."""

_SHARED = {
    "json": "print the result as one JSON document on stdout",
    "config": "configuration file instead of ./turboquant.yaml",
    "set": "any setting, as in --set deploy.port=11500 (repeatable)",
}


def command(*flags: str, name: str | None = None, **help: str) -> Callable[[Callable[..., None]], Task[Any]]:
    """Make a task of `body(run, **own)`; `flags` are names out of `FLAGS`, `help` describes the body's own.

    A parameter of its own whose default is `()` collects every use of its flag.
    """

    def decorate(body: Callable[..., None]) -> Task[Any]:
        own = list(inspect.signature(body).parameters.values())[1:]
        repeated = [one.name for one in own if one.default == ()]
        own = [one.replace(default=None) if one.name in repeated else one for one in own]

        @functools.wraps(body)
        def run_task(_context: Any, **arguments: Any) -> None:
            json = arguments.pop("json", False)
            console = Console(json=json)
            with _reported(console):
                settings = _parse_settings(arguments.pop("set", None) or ())
                settings |= {FLAGS[flag][0]: arguments.pop(flag) for flag in flags if arguments.get(flag)}
                arguments = {key: value for key, value in arguments.items() if key not in flags}
                file = arguments.pop("config", "")
                config = load(file=Path(file) if file else None, flags=settings)
                body(Run(config=config, console=console), **arguments)

        keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
        added = [inspect.Parameter(flag, keyword, default="") for flag in (*flags, "config")]
        added.append(inspect.Parameter("set", keyword, default=None))
        added.append(inspect.Parameter("json", keyword, default=False))
        run_task.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter("_context", keyword), *own, *added]
        )
        made: Task[Any] = task(
            name=name,
            iterable=["set", *repeated],
            help={**help, **{flag: FLAGS[flag][1] for flag in flags}, **_SHARED},
            auto_shortflags=False,
        )(run_task)
        return made

    return decorate


class _reported:  # noqa: N801  a context manager, used like a function
    """Ends the process with an error's own exit code, its message on stderr and, for a pipeline, as JSON on stdout."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ToolchainError):
            self._console.error(str(error))
            if self._console.json and not self._console.answered:
                described = {
                    "error": type(error).__name__,
                    "exit_code": error.exit_code,
                    "message": error.message,
                    "try": error.hint,
                }
                self._console.result(described, "")
            raise SystemExit(error.exit_code) from None
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None


def _parse_settings(pairs: tuple[str, ...] | list[str]) -> dict[str, Any]:
    settings = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise ConfigError(f"--set {pair!r}: expected KEY=VALUE", hint="--set deploy.port=11500")
        settings[key.strip()] = value
    return settings


def _interrupted(number: int, _frame: FrameType | None) -> None:
    """SIGTERM ends a run as Ctrl-C does, so that servers under test and locks are cleaned up."""
    raise SystemExit(128 + number)


class _Program(Program):
    """Invoke's program, with the exit code 2 for wrong usage that shells and this toolkit's documentation use."""

    def parse_core(self, argv: list[str] | None) -> None:
        with _wrong_usage():
            super().parse_core(argv)

    def parse_tasks(self) -> None:
        with _wrong_usage():
            super().parse_tasks()


@contextmanager
def _wrong_usage() -> Iterator[None]:
    try:
        yield
    except ParseError as error:
        raise Exit(f"error: {error}\n  try: ./inv --list, or ./inv --help TASK", code=2) from None


def main(namespace: Collection) -> None:
    """`./inv` with these tasks."""
    signal.signal(signal.SIGTERM, _interrupted)
    program = _Program(name="inv", binary="./inv", binary_names=["./inv"], version=__version__, namespace=namespace)
    try:
        program.run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
