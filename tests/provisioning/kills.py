"""Signals at random moments of tq, as a script: `python -m tests.provisioning.kills --runs 300`.

Each run starts one verb and sends it SIGKILL, SIGINT or SIGTERM, to its shell alone or to its whole process group, at
a moment drawn uniformly over the verb's measured duration. Every fourth run dies at the beginning of a step of the
journal instead. The next command, tq's or deploy's, must then find the old release or the new one (or nothing, where
that was the aim), healthy, in one process, and nothing left over; and an `apply` must end as desired. A violation is
printed with the seed that repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from toolchain.deploy.journal import INSTALL_STEPS, KILL_VARIABLE, ROLLBACK_STEPS, UNINSTALL_STEPS

from .place import TIMEOUT_S, Mac

OPERATIONS = ("upgrade", "first", "settings", "rollback", "uninstall")
SIGNALS = ("SIGKILL", "SIGKILL group", "SIGTERM", "SIGINT group")
STEPS = {"rollback": ROLLBACK_STEPS, "uninstall": UNINSTALL_STEPS}
_SETTLE_S = 10.0


@dataclass(frozen=True)
class Outcome:
    """One run. `after` is what the next command found, `violations` what must not be."""

    seed: int
    operation: str
    sent: str
    code: int | None
    after: str
    violations: tuple[str, ...]


class Place:
    """A Mac on which one verb after the other is killed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "tmp").mkdir()
        self.mac = Mac.make(folder)
        self.durations: dict[str, float] = {}
        self._versions = itertools.count(1)

    def run(self, seed: int) -> Outcome:
        """One run. The seed decides what is done, what is sent, and when."""
        draw = random.Random(seed)
        operation = OPERATIONS[seed % len(OPERATIONS)]
        sent = SIGNALS[seed // len(OPERATIONS) % len(SIGNALS)]
        if operation not in self.durations:
            verb, _ = self._prepare(operation)
            begun = time.monotonic()
            self.mac.run(verb)
            self.durations[operation] = time.monotonic() - begun
        verb, allowed = self._prepare(operation)
        step = draw.choice(STEPS.get(operation, INSTALL_STEPS)) if draw.random() < 0.25 else ""
        moment = draw.uniform(0, self.durations[operation])
        process = self.mac.start(
            verb, TMPDIR=str(self.mac.site.folder / "tmp"), **({KILL_VARIABLE: step} if step else {})
        )
        if step:
            sent = f"at {step}"
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            with contextlib.suppress(ProcessLookupError):
                number = signal.Signals[sent.split()[0]]
                os.killpg(process.pid, number) if "group" in sent else os.kill(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TIMEOUT_S)
        code = process.returncode
        for stream in (process.stdout, process.stderr):
            assert stream
            stream.close()
        by = "deploy" if draw.random() < 0.5 else "tq"
        after, violations = self._look(allowed, by)
        if code is None:
            process.kill()
            violations.append(f"still running after {TIMEOUT_S:g} s")
        if not violations:
            violations += self._converges()
        if violations:
            violations.append(f"looked at by {by}")
            self._start_over()
        return Outcome(seed, operation, sent, code, after, tuple(violations))

    def _prepare(self, operation: str) -> tuple[str, set[str]]:
        """Bring the Mac to where the verb starts: the verb, and what may be active afterwards."""
        mac = self.mac
        now = mac.site.status()
        if operation == "first":
            mac.run("uninstall")
            return "apply", {"", self._promoted()}
        while not now.healthy or (operation == "rollback" and not now.parent):
            self._promoted()
            mac.run("apply", expect=10)
            now = mac.site.status()
        if operation == "settings":
            mac.run("apply")
            now = mac.site.status()
            mac.want(kv_cache_type="f16" if mac.desired.get("kv_cache_type") != "f16" else "turbo4")
            return "apply", {now.active}
        if operation == "rollback":
            return "rollback", {now.active, now.parent}
        if operation == "uninstall":
            return "uninstall", {"", now.active}
        return "apply", {now.active, self._promoted()}

    def _promoted(self) -> str:
        """A new release, which the channel names."""
        mac, number = self.mac, next(self._versions)
        installed = set(mac.site.status().releases)
        for old in mac.publisher.site.releases.glob("*"):
            if old.name not in installed:
                shutil.rmtree(old)
                shutil.rmtree(mac.site.built(old.name))
        name = mac.release(f"v{number}", number)
        mac.publisher.promote(name)
        return name

    def _look(self, allowed: set[str], by: str) -> tuple[str, list[str]]:
        """What the next command finds, and what is wrong about it."""
        wrong = []
        if by == "tq":
            said = self.mac.run("status")
            if said.code not in (0, 20, 21):
                wrong.append(f"status ended with {said.code}: {said.log}")
        try:
            now = self.mac.configured().status()
        except Exception as error:
            return "", [*wrong, f"deploy.status ended with {type(error).__name__}: {error}"]
        if now.active not in allowed:
            wrong.append(f"{now.active!r} is active, not one of {allowed}")
        if now.active and not now.healthy:
            wrong.append(f"unhealthy: {now.reason}")
        deadline = time.monotonic() + _SETTLE_S  # what was stopped may still be ending
        while (found := self._leftovers(now.active, set(now.releases))) and time.monotonic() < deadline:
            time.sleep(0.2)
        return now.active, wrong + found

    def _leftovers(self, active: str, releases: set[str]) -> list[str]:
        prefix = self.mac.site.prefix
        found = [f"{path} is left" for path in (prefix.journal, prefix.before) if path.exists()]
        for path in prefix.folder.rglob("*"):
            if path.is_relative_to(self.mac.site.emulator) or path.name.startswith("archive"):
                continue
            if path.parent.name == "channel" and path.name.endswith(".tq_write"):
                continue  # until the next verb that takes the lock
            if path.name.startswith(".") or path.name.endswith(".new") or ".damaged" in path.name:
                found.append(f"{path} is left")
            with contextlib.suppress(FileNotFoundError):
                if not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) & 0o022:
                    found.append(f"{path} can be written by others")
        there = {path.name for path in prefix.releases.iterdir()} if prefix.releases.is_dir() else set()
        if there != releases:
            found.append(f"releases/ has {there}, known are {releases}")
        servers, daemons = 0, 0
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words, where = process.cmdline(), process.cwd()
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if "toolchain.service.emulator.daemon" in words and where == str(self.mac.site.emulator):
                    daemons += 1
                elif active and str(prefix.releases / active) in " ".join(words):
                    servers += 1
                elif any(str(prefix.folder / name) in " ".join(words) for name in ("releases", "tmp")):
                    found.append(f"pid {process.pid} is left: {' '.join(words)[:200]}")
        if servers != bool(active) or daemons > 1:
            found.append(f"{servers} servers and {daemons} emulators are running")
        return found

    def _converges(self) -> list[str]:
        """An apply, and what is wrong about its end."""
        if not self.mac.publisher.statements:
            return []
        first, second = self.mac.run("apply"), self.mac.run("apply")
        if first.code in (0, 10) and second.code == 0:
            return []
        return [f"apply ended with {first.code}, then {second.code}: {first.log} {second.log}"]

    def _start_over(self) -> None:
        self.mac.close()
        for path in self.mac.prefix.iterdir():
            if path != self.mac.site.emulator:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink()


_places: dict[Path, Place] = {}


def one(folder: Path, seed: int) -> Outcome:
    """One run in this process' own place."""
    mine = folder / str(os.getpid())
    if mine not in _places:
        _places[mine] = Place(mine)
    return _places[mine].run(seed)


def close() -> None:
    """End the emulators of this process."""
    for place in _places.values():
        place.mac.close()
    _places.clear()


def table(outcomes: list[Outcome]) -> str:
    """Runs by operation and signal: exit codes, and how many with a violation."""
    lines = ["operation  sent            runs  exit codes                       violations"]
    for operation in OPERATIONS:
        for sent in sorted({one.sent if "at " not in one.sent else "at a step" for one in outcomes}):
            those = [
                one
                for one in outcomes
                if one.operation == operation and (one.sent == sent or (sent == "at a step" and "at " in one.sent))
            ]
            if those:
                codes = " ".join(f"{code}:{n}" for code, n in sorted(Counter(str(one.code) for one in those).items()))
                bad = sum(bool(one.violations) for one in those)
                lines.append(f"{operation:<10} {sent:<15} {len(those):>4}  {codes:<32} {bad:>4}")
    return "\n".join(lines)


def main() -> int:
    """Run, print the table and the violations; 1 if there is any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="the first one; --runs 1 --seed N repeats a run")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tq-kills-"))
    outcomes: list[Outcome] = []
    try:
        with ProcessPoolExecutor(given.jobs) as pool:
            for outcome in pool.map(partial(one, folder), range(given.seed, given.seed + given.runs)):
                outcomes.append(outcome)
                for text in outcome.violations:
                    print(f"seed {outcome.seed}: {outcome.operation}, {outcome.sent}: {text}", flush=True)  # noqa: T201
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the emulators end with their folders
    bad = sum(bool(one.violations) for one in outcomes)
    print(table(outcomes), json.dumps({"runs": len(outcomes), "with violations": bad}), sep="\n")  # noqa: T201
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
