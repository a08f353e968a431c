"""Which processes belong to a release, and how they are ended. The programs are copies of sleep and of a script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.processes import ended
from toolchain.core import variables
from toolchain.core.console import Console
from toolchain.deploy import processes
from toolchain.deploy.prefix import Prefix

Start = Callable[..., int]
_TWICE = """import subprocess, sys
print(subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=subprocess.DEVNULL).pid)"""


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    made = Prefix(tmp_path / "a prefix")
    for name in ("one", "two"):
        (made.release(name) / "bin").mkdir(parents=True)
        shutil.copy2(shutil.which("sleep") or "", made.release(name) / "bin/server")
        script = made.release(name) / "bin/script"
        script.write_text(f"#!{sys.executable} -IS\nimport time\ntime.sleep(600)\n")
        script.chmod(0o755)
    return made


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program; as a daemon it is nobody's child."""
    pids: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def started(*argv: str | Path, daemon: bool = False, **environment: str) -> int:
        words, env = [str(word) for word in argv], {**os.environ, **environment}
        if daemon:
            parent = [sys.executable, "-IS", "-Wignore", "-c", _TWICE, *words]
            pids.append(int(subprocess.run(parent, env=env, stdout=subprocess.PIPE, check=True).stdout))
        else:
            children.append(subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL))
            pids.append(children[-1].pid)
        deadline = time.monotonic() + 10
        while words[0] not in " ".join(psutil.Process(pids[-1]).cmdline()) and time.monotonic() < deadline:
            time.sleep(0.01)  # between fork and exec
        return pids[-1]

    yield started
    for pid in pids:
        processes.end(processes.tree(pid))
    for child in children:
        child.wait()


def _pids(found: tuple[psutil.Process, ...]) -> set[int]:
    return {process.pid for process in found}


def test_daemons_of_a_release_are_found(prefix: Prefix, start: Start) -> None:
    server = start(prefix.release("one") / "bin/server", "600", daemon=True)
    script = start(prefix.release("one") / "bin/script", daemon=True)
    assert _pids(processes.of_release(prefix.release("one"))) == {server, script}
    assert processes.of_release(prefix.release("two")) == ()


def test_what_a_release_started_is_found_by_its_mark(prefix: Prefix, start: Start) -> None:
    folder = prefix.release("one")
    child = start("sleep", "600", **{variables.MARK: str(folder)})
    assert _pids(processes.of_release(folder)) == {child}


def test_what_a_person_runs_is_not_ours(prefix: Prefix, start: Start) -> None:
    """A client out of the release, a shell in its folder, and a look at its files."""
    folder = prefix.release("one")
    start(folder / "bin/server", "600")
    start("tail", "-f", folder / "bin/script", daemon=True)
    start("sh", "-c", f"cd '{folder}' && sleep 600; true")
    assert processes.of_release(folder) == ()


def test_only_what_is_left_over_is_ended(prefix: Prefix, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    one = start(prefix.release("one") / "bin/server", "600", daemon=True)
    two = start(prefix.release("two") / "bin/server", "600", daemon=True)
    console = Console()
    processes.end_of(prefix, console, spare=lambda: two)
    assert ended(one)
    assert processes.alive(psutil.Process(two))
    processes.end_of(prefix, console, spare=lambda: two)
    processes.end_of(prefix, console, spare=lambda: 0)
    assert ended(two)
    processes.end_of(prefix, console, spare=lambda: 0)
    said = [line for line in capsys.readouterr().err.splitlines() if "ended what ran" in line]
    assert [f"pid {pid} (server 600)" in line for pid, line in zip((one, two), said, strict=True)] == [True] * 2


def test_what_ignores_a_signal_is_killed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_GRACE_S", 0.2)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-ISc", code], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout
        stubborn.stdout.readline()
        assert _pids(processes.end([psutil.Process(stubborn.pid)])) == {stubborn.pid}
        assert stubborn.wait(10) == -9


def test_a_session_has_its_members(start: Start) -> None:
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-ISc", code], stdout=subprocess.PIPE, start_new_session=True) as leader:
        assert leader.stdout
        child = int(leader.stdout.readline())
        assert _pids(processes.group(leader.pid)) == _pids(processes.tree(leader.pid)) == {leader.pid, child}
        processes.end(processes.tree(leader.pid))
    assert processes.tree(leader.pid) == processes.tree(0) == processes.group(0) == ()
