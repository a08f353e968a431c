"""Interrupts validations and resumes them: `python -m tests.validation.interrupts [--help]`.

One validation runs undisturbed. Others are ended by SIGINT, SIGTERM and SIGKILL after so many cells, and somewhere in
the next one; each is resumed until it is complete. Its result and its kept answers must be the same but for times. A
run that was ended by SIGINT or SIGTERM leaves no server and no temporary file at once, a killed one once the next run
has ended. Without --model it runs on the double; with it, on the release of a workspace.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.processes import ended
from tests.validation import small_trial
from tests.validation.conftest import write_model, write_release

ROOT = Path(__file__).parents[2]
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
MEASURED = ("speed", "memory", "ceiling")
"""tests whose figures are measured anew, and so differ"""
TIMES = {"seconds", "started", "ran_on", "machine", "at_s", "first_s", "total_s", "prompt_s", "generated_s", "load_s"}
UNDECIDED = 83
"""the small test alone decides nothing"""
WAIT_S = 600.0


@dataclass(frozen=True)
class Bench:
    """Where validations run, and what is asked."""

    folder: Path
    model: str
    source: Path
    """a workspace with releases/ and runs/"""
    arguments: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def workspace(self, name: str) -> Path:
        """A new workspace with the releases of the source."""
        made = self.folder / name
        made.mkdir()
        for one in ("releases", "runs"):
            (made / one).symlink_to(self.source / one)
        return made

    def start(self, workspace: Path) -> subprocess.Popen[str]:
        """A validation."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", small_trial.__name__, "validate", "--model", self.model,
             "--workspace", str(workspace), *self.arguments],
            cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


def double(folder: Path) -> Bench:
    """A bench with the double, which takes some time for each token."""
    source = folder / "source"
    write_release(source)
    write_model(folder / "probe.gguf")
    slow = {"TQ_TEST_DELAY": "f16=0.005 turbo4=0.005", "TQ_TEST_NOISE": "turbo4=2"}
    arguments = ("--contexts", "512", "--tests", f"checklist,{small_trial.NAME}")
    return Bench(folder, str(folder / "probe.gguf"), source, arguments, slow)


def cells(workspace: Path) -> list[Path]:
    """The kept cells of the validation in a workspace."""
    return sorted((workspace / "validations").glob("*/cells/**/[!.]*.json"))


def outcome(workspace: Path) -> Any:
    """The result and the kept answers, without times and measured figures."""
    found = {"result": json.loads(next((workspace / "validations").glob("*/result.json")).read_text())}
    found["result"]["results"] = [one for one in found["result"]["results"] if one["test"] not in MEASURED]
    plan = found["result"]["plan"]  # its paths depend on where the workspace is
    found["result"]["plan"] = {key: one for key, one in plan.items() if not str(one).startswith("/")}
    for path in cells(workspace):
        name = path.relative_to(workspace / "validations").as_posix()
        if name.split("/")[2] not in MEASURED:
            found[name] = json.loads(path.read_text())
    return _timeless(found)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def left(workspace: Path) -> str:
    """What a run left that it should not have; empty if nothing."""
    for one in psutil.process_iter(["cwd"]):
        if (one.info["cwd"] or "").startswith(f"{workspace}/") and not ended(one.pid, within=5):
            return f"a process: {' '.join(one.cmdline())[:200]}"
    validations = workspace / "validations"
    files = [*validations.glob("*/home"), *validations.rglob(".*.json.*"), *validations.rglob("*.part")]
    return f"files: {files}" if files else ""


def complete(bench: Bench, workspace: Path) -> str:
    """Run a validation to its end; what is wrong with how it ended."""
    process = bench.start(workspace)
    said, _ = process.communicate(timeout=WAIT_S)
    return "" if process.returncode in (0, UNDECIDED) else f"it ended with {process.returncode}: {said[-2000:]}"


def interrupted(bench: Bench, name: str, number: signal.Signals, after: int, wait_s: float, expected: Any) -> str:
    """Interrupt a validation after so many cells and seconds, and resume it; what is wrong, empty if nothing."""
    workspace = bench.workspace(name)
    process = bench.start(workspace)
    deadline = time.monotonic() + WAIT_S
    while len(cells(workspace)) < after or not list((workspace / "validations").glob("*/plan.json")):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            return f"the place was not reached: {process.communicate()[0][-2000:]}"
        time.sleep(0.005)
    time.sleep(wait_s)
    process.send_signal(number)
    said, _ = process.communicate(timeout=WAIT_S)
    code = -number if number == signal.SIGKILL else 128 + number
    if process.returncode not in (code, UNDECIDED):  # the latter: it was through already
        return f"it ended with {process.returncode}: {said[-2000:]}"
    if number != signal.SIGKILL and (why := left(workspace)):
        return f"it left {why}"
    kept = {path: path.stat().st_mtime_ns for path in cells(workspace)}
    if why := complete(bench, workspace):
        return why
    if {path: path.stat().st_mtime_ns for path in kept} != kept:
        return "it measured a kept cell again"
    if why := left(workspace):
        return f"the resumed one left {why}"
    if (found := outcome(workspace)) != expected:
        differing = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
        return f"another outcome: {differing}: {str(found.get(differing[0]))[:1000]}"
    shutil.rmtree(workspace)
    return ""


def say(line: str) -> None:
    """A line of the report, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Interrupt at so many places with each signal; the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest", type=float, default=0.3, help="seconds to wait after a cell, at most")
    parser.add_argument("--model", default="", help="with --source: a model, as for ./inv validate")
    parser.add_argument("--source", default="", help="a workspace with a release")
    parser.add_argument("arguments", nargs="*", help="further ones of ./inv validate, after --")
    given = parser.parse_args()
    rng, failures = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        bench = double(folder)
        if given.model:
            bench = Bench(folder, given.model, Path(given.source).absolute(), given.arguments)
        workspace = bench.workspace("undisturbed")
        if why := complete(bench, workspace):
            say(why)
            return 1
        expected, total = outcome(workspace), len(cells(workspace))
        say(f"undisturbed: {total} cells")
        for place in range(given.places):
            for number in SIGNALS:
                after, wait_s = rng.randrange(total), rng.uniform(0, given.longest)
                why = interrupted(bench, f"{number.name}-{place}", number, after, wait_s, expected)
                failures += bool(why)
                say(f"{number.name} after {after} cells and {wait_s:.2f} s: {why or 'equal'}")
    return failures


if __name__ == "__main__":
    sys.exit(main())
