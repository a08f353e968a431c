"""What all tasks share: flags, error handling and exit codes.

A task's body gets a `Run` (configuration and console) and ends with `run.finish(record)`. Around it `Group.task` adds
the common flags, and turns a `ToolchainError` into one message and its exit code. Only bugs show a traceback.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from invoke.collection import Collection
from invoke.config import Config as InvokeConfig
from invoke.exceptions import Exit, ParseError
from invoke.program import Program
from invoke.tasks import Task, task

from .. import __version__
from ..core import folders
from ..core.config import Config, load
from ..core.console import Console
from ..core.errors import ConfigError, ToolchainError
from ..core.run import Run
from ..service import account
from .flags import SETTINGS
from .interrupts import interrupts

_STDERR = 2
_SHARED = {
    "json": "print the result as one JSON document on stdout",
    "config": "configuration file instead of ./turboquant.yaml",
    "set": "any setting, as in --set deploy.port=11500 (repeatable)",
}

_WRITTEN = ("out", "to", "offline")
"""flags that name where a task writes to"""
_LOOK_ONLY = ("deploy", "config", "doctor", "firstrun")
"""tasks that have a workspace, and leave nothing in it"""


class Group:
    """The tasks of one collection of `./inv`; `default` is the one that runs when only the collection is given."""

    def __init__(self, name: str = "", default: str = "") -> None:
        self.collection = Collection(name) if name else Collection()
        self._default = default

    def task(self, *flags: str, name: str = "", **help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Make a task of `body(run, **own)`, named like the function unless `name` is given.

        `flags` are names out of `flags.SETTINGS`; `help` describes the body's own parameters.
        """

        def decorate(body: Callable[..., None]) -> Callable[..., None]:
            named = name or body.__name__
            self.collection.add_task(_task(body, flags, help), name=named, default=named == self._default)
            return body

        return decorate


def _task(body: Callable[..., None], flags: tuple[str, ...], help: dict[str, str]) -> Task[Any]:
    kinds = get_type_hints(body)
    own = list(inspect.signature(body).parameters.values())[1:]
    repeated = {one.name: kinds[one.name] for one in own if hasattr(kinds[one.name], "read")}
    own = [one.replace(default=None) if one.name in repeated else one for one in own]

    @functools.wraps(body)
    def run_task(_context: Any, **arguments: Any) -> None:
        console = _console(arguments.pop("json", False))
        with _reported(console) as reported:
            settings = _parse_settings(arguments.pop("set", None) or ())
            settings |= {SETTINGS[flag][0]: arguments.pop(flag) for flag in flags if arguments.get(flag)}
            arguments = {key: value for key, value in arguments.items() if key not in flags}
            for flag, kind in repeated.items():
                arguments[flag] = kind.read(arguments[flag] or (), flag)
            file = arguments.pop("config", "")
            config = reported.config = load(file=Path(file) if file else None, flags=settings)
            reported.places = {f"--{one}": str(arguments[one]) for one in _WRITTEN if arguments.get(one)}
            run = Run(config=config, console=console)
            if "workspace" in flags and not body.__module__.endswith(_LOOK_ONLY) and body.__name__ not in _LOOK_ONLY:
                account.refuse_to_litter(run.workspace)
            body(run, **arguments)

    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    added = [inspect.Parameter(flag, keyword, default="") for flag in (*flags, "config")]
    added.append(inspect.Parameter("set", keyword, default=None))
    added.append(inspect.Parameter("json", keyword, default=False))
    run_task.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("_context", keyword), *own, *added]
    )
    made: Task[Any] = task(
        iterable=["set", *repeated],
        help={**help, **{flag: SETTINGS[flag][1] for flag in flags}, **_SHARED},
        auto_shortflags=False,
    )(run_task)
    return made


def _console(json: bool) -> Console:
    if json:
        return Console(json=True)
    from ..text import as_text  # what shows every record imports all that has one

    return Console(as_text=as_text)


class _reported:  # noqa: N801  a context manager, used like a function
    """Ends the process with an error's own exit code, its message on stderr and, for a pipeline, as JSON on stdout."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.config: Config | None = None
        """once it is known"""
        self.places: Mapping[str, str] = {}
        """what the flags name that a task writes to"""

    def __enter__(self) -> _reported:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        known = error if isinstance(error, ToolchainError) else self._explained(error)
        if known:
            self._end(type(known).__name__, known.exit_code, known.message, known.hint)
        if error is not None and interrupts.number:  # also what an interrupted worker or clean-up raised
            self._end("Interrupted", interrupts.exit_code(), interrupts.message())

    def _explained(self, error: BaseException | None) -> ToolchainError | None:
        if not isinstance(error, OSError | RuntimeError):
            return None
        from ..deploy import settled  # it imports much, and few tasks need it

        return folders.explained(error, self.config and settled(self.config), self.places)

    def _end(self, name: str, code: int, message: str, hint: str = "") -> NoReturn:
        self._console.error(f"{message}\n  try: {hint}" if hint else message)
        if self._console.json and not self._console.answered:
            self._console.result({"error": name, "exit_code": code, "message": message, "try": hint})
        raise SystemExit(code) from None


def _parse_settings(pairs: tuple[str, ...] | list[str]) -> dict[str, Any]:
    settings = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise ConfigError(f"--set {pair!r}: expected KEY=VALUE", hint="--set deploy.port=11500")
        settings[key.strip()] = value
    return settings


class _Config(InvokeConfig):
    """No configuration of Invoke's own: a broken ~/.invoke.yaml, or one of another user, is none of ours."""

    def load_system(self, merge: bool = True) -> None:
        """Nothing."""

    def load_user(self, merge: bool = True) -> None:
        """Nothing."""

    def load_project(self, merge: bool = True) -> None:
        """Nothing."""


class _Program(Program):
    """Invoke's program, with exit code 2 for wrong usage, as documented.

    `whole` makes the namespace for a command line with words that the given one does not know.
    """

    whole: Callable[[], Collection] | None = None

    def parse_core(self, argv: list[str] | None) -> None:
        with _wrong_usage():
            super().parse_core(argv)

    def parse_tasks(self) -> None:
        with _wrong_usage():
            try:
                super().parse_tasks()
            except ParseError:
                if self.whole is None:
                    raise
                self.namespace = self.collection = self.scoped_collection = self.whole()
                super().parse_tasks()


@contextmanager
def _wrong_usage() -> Iterator[None]:
    try:
        yield
    except ParseError as error:
        raise Exit(f"error: {error}\n  try: ./inv --list, or ./inv --help TASK", code=2) from None


def _open_closed_streams() -> None:
    """What a caller closed (`>&-`) is /dev/null from now on: else the next file would be, say, a program's stdout."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def main(namespace: Collection, whole: Callable[[], Collection] | None = None) -> None:
    """`./inv` with these tasks, or with the `whole` of them where a word is none of these."""
    _open_closed_streams()
    interrupts.catch()
    program = _Program(
        name="inv",
        binary="./inv",
        binary_names=["./inv"],
        version=__version__,
        namespace=namespace,
        config_class=_Config,
    )
    program.whole = whole
    try:
        program.run()
    except SystemExit as end:
        if interrupts.number and end.code == 1:  # Invoke's code for Ctrl-C, outside of a task
            sys.stderr.write(f"error: {interrupts.message()}\n")
            raise SystemExit(interrupts.exit_code()) from None
        raise
    finally:
        interrupts.end_at_once()
