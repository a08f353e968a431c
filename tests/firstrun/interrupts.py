"""Interrupts a first run at chosen places, and looks what it leaves: `python -m tests.firstrun.interrupts [PLACE...]`.

After SIGINT nothing may be left at once, and the report is there, incomplete. After SIGKILL nothing may be left once
the next first run has ended. The workspace is a temporary one, so that whatever is in it is of the first run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.processes import ended
from toolchain.firstrun import report

ROOT = Path(__file__).parents[2]
START = "import tasks; tasks.start()"
WAIT_S = 120.0


@dataclass(frozen=True)
class Place:
    """When a run is interrupted: once `reached` holds of its folder and its report."""

    only: str
    reached: Callable[[Path, Path], bool]


PLACES = {
    "the report is begun": Place("python", lambda _run, out: out.exists()),
    "the first job is loaded": Place("launchd", lambda run, _out: (run / "jobs/stubborn/log").exists()),
    "a job is disabled": Place("launchd", lambda run, _out: (run / "jobs/disabled").exists()),
    "bootout races bootstrap": Place("launchd", lambda run, _out: (run / "jobs/race/log").exists()),
    "a link is swapped": Place("disk", lambda run, _out: (run / "current").is_symlink()),
    "it cleans up": Place("disk", lambda run, out: out.exists() and not (run / "prefix").exists()),
}


def start(folder: Path, only: str, out: str = "report.tar.gz") -> subprocess.Popen[str]:
    """A first run with its workspace in a folder."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", START, "firstrun", "--out", str(folder / out), "--only", only,
         "--set", f"workspace={folder / 'workspace'}"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def interrupt(folder: Path, place: Place, number: signal.Signals) -> str:
    """Interrupt a run there; for SIGKILL make another one. Returns what is wrong afterwards; empty if nothing is."""
    out, run = folder / "report.tar.gz", folder / "workspace/firstrun/run"
    process = start(folder, place.only)
    deadline = time.monotonic() + WAIT_S
    while not place.reached(run, out):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            return f"the place was not reached: {process.communicate()[0][-2000:]}"
        time.sleep(0.005)
    process.send_signal(number)
    said, _ = process.communicate(timeout=WAIT_S)
    if number == signal.SIGKILL:
        if place in PLACES.values() and place is not PLACES["it cleans up"] and not run.exists():
            return "the killed run left nothing, so that this shows nothing"
        said, _ = (following := start(folder, "python", "next.zip")).communicate(timeout=WAIT_S)
        if following.returncode != 0:
            return f"the next run ended with {following.returncode}: {said[-2000:]}"
    elif process.returncode not in (128 + number, 0):  # 0: it was through already
        return f"it ended with {process.returncode}: {said[-2000:]}"
    elif process.returncode and report.read(out).complete and place is not PLACES["it cleans up"]:
        return "its report says that it is complete"
    return left(folder)


def left(folder: Path) -> str:
    """What is left besides the reports."""
    files = sorted(str(path) for path in folder.iterdir() if path.name not in ("report.tar.gz", "next.zip"))
    running = [one.pid for one in psutil.process_iter() if _is_in(one, folder) and not ended(one.pid, within=5)]
    return "; ".join([*(f"left: {file}" for file in files), *(f"runs: pid {pid}" for pid in running)])


def _is_in(one: psutil.Process, folder: Path) -> bool:
    try:
        return Path(one.cwd()).is_relative_to(folder) or str(folder) in " ".join(one.cmdline())
    except psutil.Error:
        return False


def _later(seconds: float) -> Callable[[Path, Path], bool]:
    started = time.monotonic()
    return lambda _run, _out: time.monotonic() - started > seconds


def main(names: list[str], at_random: int) -> int:
    """Every place with both signals, then so many random moments of a whole run."""
    failed = 0
    places = [(name, PLACES[name]) for name in names or PLACES]
    moments = [random.uniform(0.3, 12.0) for _ in range(at_random)]
    places += [(f"after {seconds:.2f} s", Place("launchd,disk", _later(seconds))) for seconds in moments]
    for name, place in places:
        for number in (signal.SIGINT, signal.SIGKILL):
            with tempfile.TemporaryDirectory(prefix="firstrun-") as folder:
                begun = time.monotonic()
                if name.startswith("after"):
                    place = Place(place.only, _later(float(name.split()[1])))
                wrong = interrupt(Path(folder).resolve(), place, number)
                failed += bool(wrong)
                seconds = time.monotonic() - begun
                sys.stdout.write(f"{number.name:8} {name:28} {seconds:5.1f} s  {wrong or 'nothing left'}\n")
                sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    count = (
        int(arguments.pop(0).removeprefix("--random=")) if arguments[:1] and arguments[0].startswith("--random=") else 0
    )
    sys.exit(main(arguments, count))
