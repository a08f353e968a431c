"""Ctrl-C and SIGTERM, once and more often: a message, a code, no traceback, and what was started is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.processes import ended

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, signal, subprocess, time
from concurrent.futures import ThreadPoolExecutor
from collections.abc import Callable
from pathlib import Path
from toolchain.core import process
from toolchain.core.run import Run
from toolchain.tasks import command

group = command.Group()
START = "echo $$ >>pids; exec sleep 60"

class Interrupted(subprocess.Popen):
    def __init__(self, *args, **given):
        super().__init__(*args, **given)
        while not Path("pids").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

if "INTERRUPTED_AT_THE_START" in os.environ:
    subprocess.Popen = Interrupted

@group.task()
def waits(run: Run) -> None:
    try:
        process.run(("sh", "-c", START))
    finally:
        Path("cleaning").touch()
        time.sleep(float(os.environ["CLEANING_S"]))
        Path("cleaned").touch()

@group.task()
def captures(run: Run) -> None:
    process.capture(("sh", "-c", START))

@group.task()
def threads(run: Run) -> None:
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(process.capture, ("sh", "-c", START)) for _ in range(6)]:
            job.result()

command.main(group.collection)
"""


def start(
    folder: Path, task: str, cleaning_s: float = 0.0, env: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[str], list[int]]:
    """Run a task of PROGRAM until its programs run, whose pids are returned."""
    (folder / "program.py").write_text(PROGRAM)
    started = subprocess.Popen(
        [sys.executable, "program.py", task, "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CLEANING_S": str(cleaning_s), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pids = folder / "pids"
    await_(lambda: pids.exists() and pids.read_text().count("\n") == (2 if task == "threads" else 1))
    return started, [int(line) for line in pids.read_text().split()]


def await_(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "signals", "code", "said"),
    [
        ("waits", [signal.SIGTERM], 143, "ended by SIGTERM"),
        ("waits", [signal.SIGINT, signal.SIGINT], 130, "interrupted"),
        ("waits", [signal.SIGINT, signal.SIGTERM], 130, "interrupted"),
        ("threads", [signal.SIGINT], 130, "interrupted"),
    ],
)
def test_a_run_is_ended(tmp_path: Path, task: str, signals: list[int], code: int, said: str) -> None:
    started, pids = start(tmp_path, task, cleaning_s=0.3 * (len(signals) - 1))
    for number in signals:
        started.send_signal(number)
        if number != signals[-1]:
            await_((tmp_path / "cleaning").exists)
    out, err = started.communicate(timeout=120)
    assert started.returncode == code
    assert err.endswith(f"error: {said}\n")
    assert "Traceback" not in err
    assert json.loads(out) == {"error": "Interrupted", "exit_code": code, "message": said, "try": ""}
    assert all(ended(pid) for pid in pids)
    assert (tmp_path / "cleaned").exists() == (task == "waits")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["waits", "captures"])
def test_interrupted_between_the_start_of_a_program_and_its_return(tmp_path: Path, task: str) -> None:
    started, pids = start(tmp_path, task, env={"INTERRUPTED_AT_THE_START": "yes"})
    _, err = started.communicate(timeout=120)
    assert (started.returncode, err) == (130, "error: interrupted\n")
    assert all(ended(pid) for pid in pids)


@pytest.mark.slow
def test_the_third_ends_a_clean_up_that_never_ends(tmp_path: Path) -> None:
    started, pids = start(tmp_path, "waits", cleaning_s=600)
    for _ in range(3):
        started.send_signal(signal.SIGINT)
        await_((tmp_path / "cleaning").exists)
        time.sleep(0.1)  # signals of one number that are pending are one
    _, err = started.communicate(timeout=120)
    assert started.returncode == 130
    assert err.endswith("cleaning up; once more ends it at once\n")
    assert all(ended(pid) for pid in pids)
