"""Whether a release that was just started is healthy.

Three checks: the installed version answers (and not another server), it generates with the configured cache type, and
the process stays up.
"""

from __future__ import annotations

import time

from ..core.config import DeployConfig
from ..core.console import Console
from ..core.errors import Unhealthy
from ..service.manager import Manager, ServiceState
from ..service.unit import StartedUnit, Unit

CRASHES = 2
"""exits of the process after which waiting is useless: one may be a busy port, two are a loop"""
WRONG_VERSION_GRACE_S = 2.0
"""how long the previous instance may still answer after it was stopped"""
_POLL_S = 0.05


def check(unit: Unit, started: StartedUnit, manager: Manager, config: DeployConfig, console: Console) -> None:
    """Raises `Unhealthy` with the reason. Takes at most the health timeout twice, and the stability window."""
    with console.step(f"health of {started.release.id}") as step:
        step.update(detail="version")
        before = _await_version(unit, started, manager, config.health_timeout_s)
        step.update(detail="generation")
        proof = unit.proof(started, config.health_timeout_s)
        for line in proof.lines:
            console.note(line)
        if proof.unproven:
            console.warn(proof.unproven)
        step.update(detail=f"stays up for {config.stability_s:g} s")
        _watch(before, manager, config.stability_s)
        if (found := unit.ready(started.environment)) != unit.version(started.release):
            now = f"answers with version {found!r}" if found else "does not answer"
            raise Unhealthy(f"{unit.url(started.environment)} answered at first, but now {now}")


def _await_version(unit: Unit, started: StartedUnit, manager: Manager, timeout_s: float) -> ServiceState:
    url, identifier, wanted = unit.url(started.environment), started.release.id, unit.version(started.release)
    begun = time.monotonic()
    first: ServiceState | None = None
    while True:
        found = unit.ready(started.environment)
        state = manager.inspect()
        first = first or state
        waited = time.monotonic() - begun
        if found == wanted and state.running:
            return state
        if found and found != wanted and waited > WRONG_VERSION_GRACE_S:
            raise Unhealthy(f"{url} answers version {found!r}, not {wanted!r} of release {identifier}")
        if state.runs - first.runs >= CRASHES:
            raise Unhealthy(f"release {identifier} keeps exiting, last with: {state.last_end}")
        if waited > timeout_s:
            last = f"; its last process ended with: {state.last_end}" if state.last_end and not state.running else ""
            raise Unhealthy(f"release {identifier} did not answer at {url} within {timeout_s:g} s{last}")
        time.sleep(_POLL_S)


def _watch(before: ServiceState, manager: Manager, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        state = manager.inspect()
        if (state.pid, state.runs) != (before.pid, before.runs):
            raise Unhealthy(f"the release answered, but then its process ended with: {state.last_end or 'no status'}")
        if time.monotonic() >= deadline:
            return
        time.sleep(min(_POLL_S, seconds))
