"""Signals at random moments of a deploy, as a script: `python -m tests.deploy.kills --runs 300`.

Each run starts one operation in a process of its own and sends it SIGKILL, SIGINT, SIGTERM or SIGINT twice, at a moment
drawn uniformly over the operation's measured duration. The next command, `status`, must then find the old release or
the new one (or nothing, where that was the aim), healthy, in one process, and nothing left over. A violation is printed
with the seed that repeats it.

With --switch each installation makes the service the other program, Ollama or llama-server, and `settings` installs the
same release as the other one.

The service manager is launchd's emulator, or with `--domain system` or `--domain user` the systemd of the machine that
`tests.deploy.systemd_machine` makes for one command:

    python -m tests.deploy.systemd_machine FOLDER python -m tests.deploy.kills --runs 60 --domain system
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from toolchain.core.console import Console
from toolchain.core.errors import ToolchainError
from toolchain.core.variables import SERVE
from toolchain.deploy import installer
from toolchain.service import managers
from toolchain.stages import Deployment
from toolchain.tasks.interrupts import interrupts

from .site import Site, identifier, install, running

OPERATIONS = ("upgrade", "first", "settings", "rollback", "uninstall")
SIGNALS = ("SIGKILL", "SIGINT", "SIGTERM", "SIGINT twice")
_USUAL = (0, 130, 143, -signal.SIGKILL, -signal.SIGTERM)
"""exit codes of an operation that was done, interrupted or killed"""
TWICE_S = 0.15
"""the longest time between two presses of Ctrl-C"""
_WAIT_S = 60.0
_LEFT = re.compile(r"^\.|\.new$|\.(damaged|aside)")
"""names of temporary files, and of what was set aside"""
_CHILDREN = multiprocessing.get_context("forkserver")
_CHILDREN.set_forkserver_preload(["tests.deploy.kills", "toolchain.serving.probe_model"])


@dataclass(frozen=True)
class Outcome:
    """One run. `after` is what the next command found, `violations` what must not be."""

    seed: int
    operation: str
    sent: str
    moment_s: float
    exit_code: int | None
    after: str
    violations: tuple[str, ...]
    said: str = ""
    """the last words of an operation that ended in an unusual way"""


class Place:
    """A site on which one operation after the other is interrupted."""

    def __init__(self, folder: Path, domain: str = "", *, switch: bool = False) -> None:
        folder.mkdir(parents=True)
        of_systemd = {
            "service_manager": "systemd",
            "domain": domain,
            "label": f"io.turboquant.kills-{folder.name}",
            "user": "root",
        }
        self.site = Site.make(folder, stability_s=0.05, **(of_systemd if domain else {}))
        self.switch = switch
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.said = folder / "stderr"
        self.durations: dict[str, float] = {}
        self._names = itertools.count()

    def run(self, seed: int) -> Outcome:
        """One run. The seed decides what is done, what is sent, and when."""
        draw = random.Random(seed)
        operation, sent = OPERATIONS[seed % len(OPERATIONS)], SIGNALS[seed // len(OPERATIONS) % len(SIGNALS)]
        if operation not in self.durations:
            self.durations[operation] = self._measure(operation)
        allowed, call = self._prepare(operation)
        moment, pause = draw.uniform(0, self.durations[operation]), draw.uniform(0, TWICE_S)
        with self._child(call) as process:
            assert process.pid
            time.sleep(moment)
            numbers = [signal.Signals[sent.split()[0]]] * (2 if "twice" in sent else 1)
            for number in numbers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
                time.sleep(pause if number is not numbers[-1] else 0)
            process.join(_WAIT_S)
            code = process.exitcode
        if sent == "SIGKILL":  # nobody can clean up after that; the next preflight and an uninstall do it so
            managers.choose(self.site.config.deploy, self.site.prefix.folder).sweep()
        after, violations = self._look(allowed)
        text = self.said.read_text(errors="replace")
        if code is None:
            violations.append(f"still running after {_WAIT_S:g} s")
        if "Traceback" in text:
            violations.append(f"a traceback: {text[text.index('Traceback') :][-600:]}")
        if violations:
            self._start_over()
        said = "" if code in _USUAL else text[-600:]
        return Outcome(seed, operation, sent, moment, code, after, tuple(violations), said)

    def _measure(self, operation: str) -> float:
        _, call = self._prepare(operation)
        begun = time.monotonic()
        with self._child(call) as process:
            process.join(_WAIT_S)
        return time.monotonic() - begun

    def _prepare(self, operation: str) -> tuple[set[str], Callable[[Console], object]]:
        """Bring the site to where the operation starts: what may be active afterwards, and the operation."""
        site = self.site
        now = site.status()
        target = self._configured(now)
        if operation == "first":
            if now.active:
                installer.uninstall(site.config, site.console)
            new = self._release()
            return {"", identifier(new)}, partial(install, new, target.config)
        if not now.healthy or (operation == "rollback" and not now.parent):
            for _ in range(2 if operation == "rollback" else 1):
                now = target.install(self._release())
                target = self._configured(now)
        if operation == "settings":
            if self.switch:
                return {now.active}, partial(install, site.built(now.active), target.config)
            kind = next(kind for kind in ("turbo4", "f16") if f"TYPE={kind}\n" not in self._environment(now))
            changed = site.configured(kv_cache_type=kind)
            return {now.active}, partial(install, site.built(now.active), changed.config)
        if operation == "rollback":
            return {now.active, now.parent}, partial(installer.rollback, site.config)
        if operation == "uninstall":
            return {"", now.active}, partial(installer.uninstall, site.config)
        new = self._release()
        return {now.active, identifier(new)}, partial(install, new, target.config)

    def _configured(self, now: Deployment) -> Site:
        """The site; with `switch`, for the program that does not serve now."""
        serves = self.switch and now.active and f"{SERVE}=llama-server\n" in self._environment(now)
        return self.site.serving() if self.switch and not serves else self.site

    def _release(self) -> Path:
        for old in self.site.folder.glob("built-*"):
            if identifier(old) not in self.site.status().releases:
                shutil.rmtree(old)
        return self.site.release(f"v{next(self._names)}")

    def _environment(self, now: Deployment) -> str:
        return (self.site.prefix.release(now.active) / "environment").read_text()

    def _look(self, allowed: set[str]) -> tuple[str, list[str]]:
        """What the next command finds, and what is wrong about it."""
        try:
            now = self.site.status()
        except Exception as error:
            return "", [f"status ended with {type(error).__name__}: {error}"]
        wrong = []
        if now.active not in allowed:
            wrong.append(f"{now.active!r} is active, not one of {allowed}")
        if now.active and not now.healthy:
            wrong.append(f"unhealthy: {now.reason}")
        deadline = time.monotonic() + 5  # what was stopped may still be ending
        while (found := self._leftovers(now)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return now.active, wrong + found

    def _leftovers(self, now: Deployment) -> list[str]:
        prefix = self.site.prefix
        unwanted = (prefix.journal, prefix.before, prefix.folder / "lock.owner")
        found = [f"{path} is left" for path in unwanted if path.exists()]
        for path in prefix.folder.rglob("*"):
            if path.is_relative_to(self.site.emulator):
                continue
            if (
                path.name.startswith(".")
                or path.name.endswith(".new")
                or ".damaged" in path.name
                or ".aside" in path.name
            ):
                found.append(f"{path} is left")
            if not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) & 0o022:
                found.append(f"{path} can be written by others")
        for folder in (self.temporary, prefix.folder / "tmp"):
            found += [f"{path} is left" for path in (folder.iterdir() if folder.is_dir() else ())]
        there = {path.name for path in prefix.releases.iterdir()} if prefix.releases.is_dir() else set()
        if there != set(now.releases):
            found.append(f"releases/ has {there}, known are {set(now.releases)}")
        return found + self._units(now) + self._processes(now)

    def _units(self, now: Deployment) -> list[str]:
        """Of systemd: the unit and the link that enables it while a release is active, and none of the preflight's."""
        if self.site.config.deploy.service_manager != "systemd":
            return []
        manager = managers.choose(self.site.config.deploy, self.site.prefix.folder)
        file = Path(manager.registration.file)
        there = {str(path.relative_to(file.parent)) for path in file.parent.rglob(f"*{self.site.config.deploy.label}*")}
        wants = "multi-user" if manager.registration.domain == "system" else "default"
        expected = {file.name, f"{wants}.target.wants/{file.name}"} if now.active else set()
        wrong = [f"units: there are {there}, not {expected}"] if there != expected else []
        loaded = manager.inspect().loaded
        return wrong + ([f"the unit is {'' if loaded else 'not '}active"] if loaded != bool(now.active) else [])

    def _processes(self, now: Deployment) -> list[str]:
        """One server of the active release and one emulator, and nothing else with a path of this site."""
        found, servers, daemons, beside = [], [], 0, []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words, where = process.cmdline(), process.cwd()
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if "toolchain.service.emulator.daemon" in words and where == str(self.site.emulator):
                    daemons += 1
                elif now.active and str(self.site.prefix.releases / now.active) in " ".join(words):
                    servers.append(process.pid)
                elif words[:1] == ["/bin/sh"] and str(self.site.prefix.shim) in words:
                    beside.append(process.pid)  # what rotates the log, in the service's own process group
                elif str(self.site.prefix.folder) in " ".join(words):
                    found.append(f"pid {process.pid} is left: {' '.join(words)[:200]}")
        for pid in beside:
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) not in servers:
                    found.append(f"pid {pid} is left of a service that has ended")
        if len(servers) != bool(now.active) or daemons > 1:
            found.append(f"{len(servers)} servers and {daemons} emulators are running")
        return found

    def _start_over(self) -> None:
        self.site.close()
        for path in self.site.prefix.folder.iterdir():
            if path != self.site.emulator:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _child(self, call: Callable[[Console], object]) -> AbstractContextManager[BaseProcess]:
        return running(_CHILDREN.Process(target=_operate, args=(call, str(self.said), str(self.temporary))))


def _operate(call: Callable[[Console], object], said: str, temporary: str) -> None:
    """One operation as `./inv` runs it: with its signals, its messages and its exit codes."""
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 2)
    tempfile.tempdir = temporary
    os.environ["TMPDIR"] = temporary
    interrupts.catch()
    try:
        call(Console())
    except ToolchainError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(interrupts.exit_code()) from None
    finally:
        interrupts.end_at_once()


_places: dict[Path, Place] = {}


def _one(folder: Path, domain: str, switch: bool, seed: int) -> Outcome:
    mine = folder / str(os.getpid())
    if mine not in _places:
        _places[mine] = Place(mine, domain, switch=switch)
    return _places[mine].run(seed)


def table(outcomes: list[Outcome]) -> str:
    """Runs by operation and signal: how many ended with the old release, the new one, and with a violation."""
    lines = ["operation  signal        runs  exit codes                 violations"]
    for operation, sent in itertools.product(OPERATIONS, SIGNALS):
        those = [one for one in outcomes if (one.operation, one.sent) == (operation, sent)]
        if those:
            counts = sorted(Counter(str(one.exit_code) for one in those).items())
            codes = " ".join(f"{code}:{count}" for code, count in counts)
            bad = sum(bool(one.violations) for one in those)
            lines.append(f"{operation:<10} {sent:<13} {len(those):>4}  {codes:<26} {bad:>4}")
    return "\n".join(lines)


def main() -> int:
    """Run, print the table and the violations; 1 if there is any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="the first one; --runs 1 --seed N repeats a run")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--switch", action="store_true", help="between Ollama and llama-server at each installation")
    parser.add_argument("--domain", default="", choices=("", "system", "user"), help="of systemd, instead of launchd")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        with ProcessPoolExecutor(given.jobs, _CHILDREN) as pool:
            seeds = range(given.seed, given.seed + given.runs)
            outcomes = list(pool.map(partial(_one, folder, given.domain, given.switch), seeds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the emulators end with their folders
    report = [table(outcomes)]
    for one in outcomes:
        for text in one.violations:
            report.append(f"seed {one.seed}: {one.operation}, {one.sent} after {one.moment_s:.3f} s: {text}")
        if one.said:
            report.append(f"seed {one.seed}: {one.operation}, {one.sent}, code {one.exit_code}: ... {one.said}")
    bad = sum(bool(one.violations) for one in outcomes)
    report.append(json.dumps({"runs": len(outcomes), "with violations": bad}))
    sys.stdout.write("\n".join(report) + "\n")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
