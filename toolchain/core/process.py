"""Running other programs: argument lists only, with a log, and its tail in the error when one fails."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from .errors import CommandFailed, MissingTool, ToolchainError
from .records import record

TAIL_LINES = 30
_ASK_S, _STDERR_CHARACTERS = 60.0, 500
Child: TypeAlias = subprocess.Popen[bytes]
_awaited: set[int] = set()
"""process groups that worker threads wait for"""
_stopping = threading.Event()
_held: list[BaseException] | None = None
"""an interrupt waits here while the main thread starts a program, which nobody could kill yet; None: none waits"""


@record
class Completed:
    """A finished program: its arguments, exit status and output (stdout and stderr as one)."""

    argv: tuple[str, ...]
    returncode: int
    output: str
    seconds: float


@record
class Captured:
    """A finished program whose stdout and stderr were kept apart."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """stdout as text."""
        return self.stdout.decode(errors="replace")

    @property
    def error_text(self) -> str:
        """stderr as text."""
        return self.stderr.decode(errors="replace")


def spawn(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    base: Mapping[str, str] | None = None,
    log: Path | None = None,
    failure: type[ToolchainError] = CommandFailed,
    hint: str = "",
    **streams: Any,
) -> Child:
    """Start a program in its own session, so that `kill_group` ends it and its children.

    `env` is added to `base`, by default the process's own environment. stdin is empty; stdout and stderr go to the
    file `log`, which is overwritten (without `log`: to our own), and `streams` are passed to Popen.
    Where root acts as another user the program is really that user's: a shell would become root again.
    Raises `MissingTool` when the program does not exist, and `failure` with the `hint` when it cannot be started.
    """
    words = [str(word) for word in argv]
    if _stopping.is_set() and not _in_main_thread():
        raise failure(f"{words[0]} was not started: interrupted")
    with contextlib.ExitStack() as files:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            streams |= {"stdout": files.enter_context(log.open("wb")), "stderr": subprocess.STDOUT}
        if os.geteuid() != os.getuid():
            streams |= {"user": os.geteuid(), "group": os.getegid()}
        try:
            return subprocess.Popen(
                words,
                cwd=cwd,
                env={**(os.environ if base is None else base), **(env or {})},
                start_new_session=True,
                **{"stdin": subprocess.DEVNULL, **streams},
            )
        except OSError as error:
            if cwd is not None and not cwd.is_dir():
                raise CommandFailed(f"{cwd}: no such directory (for {words[0]})") from error
            if isinstance(error, FileNotFoundError) and shutil.which(words[0]) is None:
                raise MissingTool(f"{words[0]}: no such program", hint="./inv doctor lists what is needed") from error
            raise failure(f"{words[0]} cannot be started: {error.strerror or error}", hint=hint) from error


@contextlib.contextmanager
def owned(argv: Sequence[str | Path], **given: Any) -> Iterator[Child]:
    """Start a program as `spawn` does; what raises in the block, an interrupt too, kills it and its process group.

    An interrupt of the main thread while the program starts is raised as soon as there is someone to kill it.
    """
    process: Child | None = None
    try:
        with _interrupts_held():
            process = spawn(argv, **given)
        with _known(process.pid):
            yield process
    except BaseException:
        if process is not None:
            kill_group(process.pid)
            process.wait()
        raise


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    timeout: float | None = None,
    check: bool = True,
    failure: type[ToolchainError] = CommandFailed,
    what: str = "",
) -> Completed:
    """Run a program to its end and return what it printed.

    stdout and stderr are read as one stream, line by line: appended to `log` as they come, and passed to
    `on_line` for progress. `env` is added to the process's own environment. A non-zero exit status raises `failure`
    with the command and the last lines, unless `check` is false; `timeout` (seconds) kills the whole process
    group and counts as a failure. Raises `MissingTool` when the program does not exist.
    """
    words = [str(word) for word in argv]
    started = time.monotonic()
    lines: list[str] = []
    timed_out = threading.Event()

    def expire() -> None:
        timed_out.set()
        kill_group(process.pid)

    with contextlib.ExitStack() as opened:
        sink = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            sink = opened.enter_context(log.open("a", encoding="utf-8"))
            sink.write(f"$ {shlex.join(words)}\n")
        process = opened.enter_context(
            owned(words, cwd=cwd, env=env, failure=failure, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
        assert process.stdout is not None
        output = opened.enter_context(io.TextIOWrapper(process.stdout, encoding="utf-8", errors="replace"))
        if timeout:
            timer = threading.Timer(timeout, expire)
            opened.callback(timer.cancel)
            timer.start()
        for line in output:
            lines.append(line)
            if sink:
                sink.write(line)
                sink.flush()
            if on_line:
                on_line(line.rstrip("\n"))
        returncode = process.wait()
    done = Completed(
        argv=tuple(words), returncode=returncode, output="".join(lines), seconds=time.monotonic() - started
    )
    if check and (returncode != 0 or timed_out.is_set()):
        why = f"exceeded its time limit of {timeout:g} s" if timed_out.is_set() else ending(returncode)
        raise failure(describe_failure(done, why=why, what=what, cwd=cwd, log=log))
    return done


def capture(
    argv: Sequence[str | Path],
    *,
    given: bytes = b"",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    base: Mapping[str, str] | None = None,
    timeout: float | None = None,
    check: bool = True,
    failure: type[ToolchainError] = CommandFailed,
    what: str = "",
) -> Captured:
    """Run a program to its end, with `given` on its stdin, and return its stdout and stderr as bytes.

    `env` and `base` are as in `spawn`; `check` and `failure` as in `run`, with the end of stderr in the message.
    `timeout` (seconds) kills the whole process group and raises `failure` whatever `check` says.
    """
    pipe = subprocess.PIPE
    why = ""
    with owned(argv, cwd=cwd, env=env, base=base, failure=failure, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            stdout, stderr = process.communicate(given, timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_group(process.pid)
            stdout, stderr = process.communicate()
            why = f"exceeded its time limit of {timeout:g} s"
    done = Captured(argv=tuple(map(str, argv)), returncode=process.returncode, stdout=stdout, stderr=stderr)
    if why or (check and done.returncode != 0):
        said = done.error_text.strip()[-_STDERR_CHARACTERS:]
        why = why or ending(done.returncode)
        raise failure(f"{what or Path(done.argv[0]).name} {why}{f': {said}' if said else ''}")
    return done


def ending(code: int) -> str:
    """How a program ended, as in "ended with 1" or "was killed by signal 4 (Illegal instruction)"."""
    return (
        f"was killed by signal {-code} ({signal.strsignal(-code) or 'unknown'})" if code < 0 else f"ended with {code}"
    )


def ask(argv: Sequence[str | Path]) -> str:
    """A program's stdout; empty when it is missing, fails, or takes over a minute."""
    try:
        return capture(argv, timeout=_ASK_S).text
    except ToolchainError:
        return ""


def describe_failure(done: Completed, *, why: str, what: str, cwd: Path | None, log: Path | None) -> str:
    """What failed, its command, and the tail of its output."""
    tail = "".join(f"    {line}\n" for line in deque(done.output.splitlines(), maxlen=TAIL_LINES))
    parts = [f"{what or Path(done.argv[0]).name} {why}", f"  command: {shlex.join(done.argv)}"]
    if cwd:
        parts.append(f"  in: {cwd}")
    if log:
        parts.append(f"  log: {log}")
    return "\n".join(parts) + (f"\n  last lines:\n{tail.rstrip()}" if tail else "")


def interrupt(exception: BaseException) -> None:
    """End what runs, as a signal asks for: raise this in the main thread, and end what worker threads wait for."""
    stop_workers()
    if _held is None:
        raise exception
    _held.append(exception)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Meanwhile an interrupt of the main thread waits: it is raised at the end."""
    global _held
    if not _in_main_thread():
        yield
        return
    waiting: list[BaseException] = []
    _held = waiting
    try:
        yield
    finally:
        _held = None
        if waiting:
            raise waiting[0]


def stop_workers() -> None:
    """End the programs that worker threads wait for, and let these start no more: the run was interrupted.

    An interrupt only reaches the main thread, which then waits for its worker threads.
    """
    _stopping.set()
    for leader in tuple(_awaited):
        kill_group(leader)


@contextlib.contextmanager
def _known(leader: int) -> Iterator[None]:
    """Meanwhile `stop_workers` ends this process group, if a worker thread waits for it."""
    if _in_main_thread():
        yield
        return
    _awaited.add(leader)
    try:
        if _stopping.is_set():
            kill_group(leader)
        yield
    finally:
        _awaited.discard(leader)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def kill_group(leader: int) -> None:
    """Kill a process group that `start_new_session` made, if it is still there, with all descendants of its leader.

    ninja gives each compiler a group of its own. The group is stopped first, so that it starts no more of them.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGSTOP)
    descendants: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        descendants = psutil.Process(leader).children(recursive=True)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for one in descendants:
        with contextlib.suppress(psutil.Error):
            one.kill()
