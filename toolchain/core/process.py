"""Running other programs: argument lists only, the log kept, the tail at hand when one fails."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .errors import CommandFailed, MissingTool, ToolchainError
from .records import record

TAIL_LINES = 30


@record
class Completed:
    """A finished program: what it was called with, how it ended, what it said (stdout and stderr as one)."""

    argv: tuple[str, ...]
    returncode: int
    output: str
    seconds: float


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
    `on_line` for progress. `env` is laid over the process's own environment. A non-zero end raises `failure`
    with the command and the last lines, unless `check` is false; `timeout` (seconds) kills the whole process
    group and counts as a failure. Raises `MissingTool` when the program does not exist.
    """
    words = [str(word) for word in argv]
    started = time.monotonic()
    lines: list[str] = []
    sink = None
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        sink = log.open("a", encoding="utf-8")
        sink.write(f"$ {shlex.join(words)}\n")
    try:
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, **env} if env is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        if sink:
            sink.close()
        if cwd is not None and not cwd.is_dir():
            raise CommandFailed(f"{cwd}: no such directory (for {words[0]})") from error
        raise MissingTool(f"{words[0]}: no such program", hint="./inv doctor lists what is needed") from error
    timed_out = threading.Event()

    def expire() -> None:
        timed_out.set()
        kill_group(process.pid)

    timer = threading.Timer(timeout, expire) if timeout else None
    if timer:
        timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if sink:
                sink.write(line)
                sink.flush()
            if on_line:
                on_line(line.rstrip("\n"))
        returncode = process.wait()
    except BaseException:
        kill_group(process.pid)
        process.wait()
        raise
    finally:
        if timer:
            timer.cancel()
        if sink:
            sink.close()
        if process.stdout:
            process.stdout.close()
    done = Completed(
        argv=tuple(words), returncode=returncode, output="".join(lines), seconds=time.monotonic() - started
    )
    if check and (returncode != 0 or timed_out.is_set()):
        why = f"ran past its {timeout:g} s" if timed_out.is_set() else f"ended with {returncode}"
        raise failure(describe_failure(done, why=why, what=what, cwd=cwd, log=log))
    return done


def describe_failure(done: Completed, *, why: str, what: str, cwd: Path | None, log: Path | None) -> str:
    """What failed, its command, and the tail of what it said."""
    tail = "".join(f"    {line}\n" for line in deque(done.output.splitlines(), maxlen=TAIL_LINES))
    parts = [f"{what or Path(done.argv[0]).name} {why}", f"  command: {shlex.join(done.argv)}"]
    if cwd:
        parts.append(f"  in: {cwd}")
    if log:
        parts.append(f"  log: {log}")
    return "\n".join(parts) + (f"\n  last lines:\n{tail.rstrip()}" if tail else "")


def kill_group(leader: int) -> None:
    """Kill a process group that `start_new_session` made, if it is still there."""
    import signal

    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
