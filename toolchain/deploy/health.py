"""Whether a release that was just started is healthy.

The installed version answers, and from the service's own process; it ends when it is asked to, with all its processes;
it generates with the configured cache type, and leaves nothing behind that grows; and it stays up.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from ..core.config import DeployConfig
from ..core.console import Console
from ..core.deadline import Deadline
from ..core.errors import ServerFailed, Unhealthy
from ..core.printable import printable
from ..host.ports import listeners
from ..service.manager import Manager, ServiceState
from ..service.unit import CALL_TIMEOUT_S, StartedUnit, Unit, UnitProof
from . import processes, reminder

CRASHES = 2
"""exits of the process after which waiting is useless: one may be a busy port, two are a loop"""
WRONG_VERSION_GRACE_S = 2.0
"""how long the previous instance may still answer after it was stopped"""
SETTLE_S = 5.0
"""how long the processes of a generation, or of a stopped instance, may take to end"""
FILES = 16
"""open files that a generation may leave behind, as caches of a program do"""
_PROBES = 2
_NOTICED_S = 0.2
"""in which the manager learns that its process has ended"""
_POLL_S = 0.05


def check(
    unit: Unit,
    started: StartedUnit,
    manager: Manager,
    folder: Path,
    config: DeployConfig,
    console: Console,
    *,
    stop: bool = True,
) -> None:
    """Check a release that was started out of `folder`. Raises `Unhealthy` with the reason.

    With `stop` it is stopped and started again once it answers. Takes at most the health timeout, what the manager
    gives a process to end, and the stability window.
    """
    deadline = Deadline(config.health_timeout_s)
    with console.step(f"health of {started.release.id}") as step:
        trial = _Trial(unit, started, manager, folder, console, deadline)
        step.update(detail="version")
        trial.await_version()
        if stop:
            step.update(detail="stop")
            trial.stop()
            trial.await_version()
        step.update(detail="generation")
        trial.prove()
        step.update(detail=f"stays up for {config.stability_s:g} s")
        trial.watch(config.stability_s)


class _Trial:
    """The checks of one release; `state` is the service's, when the release answered last."""

    state: ServiceState

    def __init__(
        self, unit: Unit, started: StartedUnit, manager: Manager, folder: Path, console: Console, deadline: Deadline
    ) -> None:
        self._unit, self._started, self._manager, self._folder = unit, started, manager, folder
        self._console, self._deadline = console, deadline
        self._url, self._wanted = unit.url(started.environment), unit.version(started.release)
        self._name = f"release {started.release.id}"

    def await_version(self) -> None:
        """Wait until the release's version answers, from the service's own process."""
        deadline, manager = self._deadline, self._manager
        begun = time.monotonic()
        first: ServiceState | None = None
        while True:
            found = self._unit.ready(self._started.environment, min(CALL_TIMEOUT_S, max(deadline.left, _POLL_S)))
            state = manager.inspect()
            first = first or state
            if found == self._wanted and state.running:
                break
            if found and found != self._wanted and time.monotonic() - begun > WRONG_VERSION_GRACE_S:
                raise Unhealthy(f"{self._url} answers version {_short(found)}, not {self._wanted!r} of {self._name}")
            if state.runs - first.runs >= CRASHES:
                raise Unhealthy(f"{self._name} keeps exiting, last with: {state.last_end}")
            if deadline.passed:
                last = state.last_end if not state.running else ""
                last = f"; its last process ended with: {last}" if last else ""
                raise Unhealthy(
                    f"{self._name} did not answer at {self._url} within {deadline.seconds:g} s{last}",
                    hint="" if last else "if its model takes longer to load, set deploy.health_timeout_s higher",
                )
            time.sleep(_POLL_S)
        self.state = state
        self._require_own_listener()

    def stop(self) -> None:
        """Stop the release once, and start it again: it must end by itself, with all its processes.

        Now this costs nobody anything. At the next deploy, what is left over would hold the port.
        """
        pid = self.state.pid
        known = {*processes.tree(pid), *processes.group(pid), *processes.of_release(self._folder)}
        size = self._started.log_size()
        with reminder.second_signal(self._manager):
            ended = self._manager.restart()
        settled = Deadline(SETTLE_S)
        while True:
            present = set(processes.tree(self._manager.inspect().pid))
            left = set(filter(processes.alive, known | {*processes.of_release(self._folder)})) - present
            if not left or settled.passed:
                break
            time.sleep(_POLL_S)
        told = processes.listed(left)
        processes.end(left)
        if not ended:
            raise Unhealthy(f"{self._name} ignores SIGTERM: it had to be killed")
        if told:
            raise Unhealthy(f"{self._name} was stopped, and left running: {told}")
        self._started = replace(self._started, log_offset=size)

    def prove(self) -> None:
        """Generate twice with the configured cache type. Neither processes nor open files may grow with it."""
        before = self._running()
        most = len(before) - self._runners()
        files: list[int] = []
        for number in range(_PROBES):
            proof = self._proof()
            for line in proof.lines if number == 0 else ():
                self._console.note(printable(line))
            if proof.unproven and number == 0:
                self._console.warn(proof.unproven)
            settled = self._deadline.within(SETTLE_S)
            while len(now := self._running()) - self._runners() > most:
                if settled.passed:
                    raise Unhealthy(
                        f"{self._name} leaves a process behind at each generation: {processes.listed(now - before)}"
                    )
                time.sleep(_POLL_S)
            files.append(processes.open_files(now))
        if min(files) >= 0 and files[-1] - files[0] > FILES:
            raise Unhealthy(f"{self._name} leaves {files[-1] - files[0]} files open at each generation")

    def _proof(self) -> UnitProof:
        try:
            return self._unit.proof(self._started, self._deadline)
        except Unhealthy:
            time.sleep(_NOTICED_S)
            self._require_same_process()  # that it died says more than that it does not answer
            raise

    def watch(self, seconds: float) -> None:
        """The same process must still run and answer after so many seconds."""
        window = Deadline(seconds)
        while not window.passed:
            self._require_same_process()
            time.sleep(min(_POLL_S, seconds))
        self._require_same_process()
        found = self._unit.ready(self._started.environment)
        if found != self._wanted:
            now = f"answers with version {_short(found)}" if found else "does not answer"
            raise Unhealthy(f"{self._url} answered at first, but now {now}")
        self._require_own_listener()

    def _require_same_process(self) -> None:
        state = self._manager.inspect()
        if (state.pid, state.runs) != (self.state.pid, self.state.runs):
            end = state.last_end or "no status"
            raise Unhealthy(f"the release answered, but then its process ended with: {end}")

    def _require_own_listener(self) -> None:
        """Only the service's process and its descendants may listen on its port."""
        port, pid = urlsplit(self._url).port or 0, self.state.pid
        settled = Deadline(WRONG_VERSION_GRACE_S)
        while True:
            found, own = listeners(port), {process.pid for process in processes.tree(pid)}
            seen = set(found) - {0}
            if seen and seen <= own:
                self._require_own_program(seen)
                return
            if settled.passed or not own:
                break
            time.sleep(_POLL_S)
        self._require_same_process()
        hint = "a release must stay in the foreground: the service manager cannot stop what leaves it"
        if foreign := seen - own:
            told = processes.listed(process for one in sorted(foreign) for process in processes.tree(one)[:1])
            raise Unhealthy(
                f"port {port} is held by {told or 'another process'}, which is not the service's process {pid} nor a "
                "descendant of it",
                hint=hint,
            )
        if not found and (sys.platform != "darwin" or os.geteuid() == 0):
            raise Unhealthy(f"{self._url} answers, but none of the service's processes listens there", hint=hint)
        self._console.warn(f"which process listens on port {port} is unknown: this account does not see it")

    def _require_own_program(self, pids: set[int]) -> None:
        """What listens must run out of the release: two releases may answer with the same version."""
        for process in (one for one in processes.tree(self.state.pid) if one.pid in pids):
            if processes.is_foreign(process, self._folder):
                told = f"{processes.describe(process)}, which is no program of {self._name}"
                raise Unhealthy(f"{self._url} answers from {told}", hint=f"only what is in {self._folder} may serve")

    def _running(self) -> set[psutil.Process]:
        """The processes of the release."""
        return {*processes.tree(self.state.pid), *processes.of_release(self._folder)}

    def _runners(self) -> int:
        """How many of them are there for models, which clients may load meanwhile."""
        with contextlib.suppress(ServerFailed):
            return self._unit.runners(self._started.environment, self._deadline)
        return 0


def _short(version: str) -> str:
    return repr(printable(version, 300))
