"""What all hosts of a fleet are, or would become, without changing any: `fleet.status` and `fleet.plan`."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Literal

from ..core.deadline import Deadline
from ..core.delivery_errors import DriftFound, HostKeyRejected, HostUnreachable, RolloutHalted
from ..core.errors import ToolchainError
from ..core.records import record
from ..core.run import Run
from .connection import Remote, TimedOut, Unreachable
from .controller import loaded
from .crew import Crew, Overdue
from .inventory import Host, Inventory
from .outcome import Change, Facts
from .provisioner import ABSENT, CHANGED, DONE, DRIFT, UNHEALTHY, Kit, Provisioner, TqFailed, explained, settled

_AT_ONCE = 8
_GRACE_S = 30.0
State = Literal[
    "as-desired", "would-change", "drift", "not-installed", "unhealthy", "failed", "unreachable", "rejected"
]


@record
class Surveyed:
    """A host as it was found."""

    name: str
    wave: int
    group: str = ""
    state: State
    facts: Facts | None = None
    release: str = ""
    """of a plan: what it would get"""
    changes: tuple[Change, ...] = ()
    error: str = ""
    message: str = ""
    hint: str = ""
    seconds: float = 0.0


@record
class _Survey:
    inventory: str
    hosts: tuple[Surveyed, ...]
    seconds: float

    def _in(self, *states: State) -> tuple[Surveyed, ...]:
        return tuple(one for one in self.hosts if one.state in states)

    def _not_asked(self) -> ToolchainError | None:
        if rejected := self._in("rejected"):
            return HostKeyRejected(rejected[0].message, hint=rejected[0].hint)
        if len(self._in("unreachable")) == len(self.hosts):
            return HostUnreachable("no host could be reached", hint=self.hosts[0].message)
        return None


@record
class FleetPlan(_Survey):
    """What a rollout would change."""

    def failure(self) -> ToolchainError | None:
        """A plan that fails on some host would halt a rollout."""
        failed = self._in("failed")
        why = f"a rollout would fail on {', '.join(one.name for one in failed)}"
        return self._not_asked() or (RolloutHalted(why, hint=failed[0].hint or failed[0].message) if failed else None)


@record
class FleetStatus(_Survey):
    """What the hosts are."""

    def failure(self) -> ToolchainError | None:
        """Drift, in its widest sense, is for monitoring."""
        others = self._in("drift", "not-installed", "unhealthy", "failed")
        named = ", ".join(f"{one.name} ({one.state})" for one in others)
        drift = DriftFound(f"not as desired: {named}", hint="fleet.plan says what would change") if others else None
        return self._not_asked() or drift


def plan(run: Run, release: str = "") -> FleetPlan:
    """Ask every host what `tq apply` would change. Raises `InventoryInvalid`."""
    found, kit = loaded(run)
    started = time.monotonic()
    hosts = _survey(run, found, kit, release, planning=True)
    return FleetPlan(inventory=found.path, hosts=hosts, seconds=round(time.monotonic() - started, 3))


def status(run: Run) -> FleetStatus:
    """Ask every host what it is. Raises `InventoryInvalid`."""
    found, kit = loaded(run)
    started = time.monotonic()
    hosts = _survey(run, found, kit, "", planning=False)
    return FleetStatus(inventory=found.path, hosts=hosts, seconds=round(time.monotonic() - started, 3))


def _survey(run: Run, found: Inventory, kit: Kit, release: str, *, planning: bool) -> tuple[Surveyed, ...]:
    answers: dict[str, Surveyed] = {}
    crew, waiting = Crew(max(_AT_ONCE, found.rules.max_parallel)), list(found.hosts)
    limit_s = found.rules.command_timeout
    with run.console.step(f"asking {len(waiting)} hosts") as step:
        while waiting or crew.running:
            while waiting and not crew.full:
                host = waiting.pop(0)
                ask = _Asking(host, found, kit, release, planning=planning)
                crew.start(host.name, functools.partial(ask.into, answers), limit_s + _GRACE_S)
            if ended := crew.ended(limit_s):
                name, error = ended
                if isinstance(error, Overdue):
                    host = found.host(name)
                    answers[name] = Surveyed(name=name, wave=host.wave, state="unreachable", message="no sign of life")
                elif error is not None:
                    raise error
                step.update(len(answers), len(found.hosts), f"{name}: {answers[name].state}")
    return tuple(answers[host.name] for host in found.hosts)


class _Asking:
    """The questions to one host."""

    def __init__(self, host: Host, found: Inventory, kit: Kit, release: str, *, planning: bool) -> None:
        self.host, self._rules, self._kit = host, found.rules, kit
        self._release, self._planning = release, planning

    def into(self, answers: dict[str, Surveyed]) -> None:
        """Put what it said into `answers`."""
        answers[self.host.name] = self.answer()

    def answer(self) -> Surveyed:
        """What it said."""
        started = time.monotonic()
        one = Surveyed(name=self.host.name, wave=self.host.wave, group=self.host.group, state="failed")
        change = dataclasses.replace
        limit = Deadline(self._rules.command_timeout)
        try:
            with Remote(self.host, limit, self._rules.connect_timeout) as remote:
                one = self._asked(one, Provisioner(self.host, remote, self._kit, self._release, look=True), limit)
        except HostKeyRejected as error:
            one = change(one, state="rejected", **explained(error))
        except Unreachable as error:
            one = change(one, state="unreachable", **explained(error))
        except (TimedOut, TqFailed) as error:
            one = change(one, **explained(error))
        return change(one, seconds=round(time.monotonic() - started, 3))

    def _asked(self, one: Surveyed, tq: Provisioner, limit: Deadline) -> Surveyed:
        tq.prepare()
        try:
            said = tq.ask("status", limit, self._rules.command_timeout, wait=time.sleep)
            one = dataclasses.replace(one, facts=said.facts(), changes=said.differences(), message=said.facts().message)
            if not self._planning:
                return dataclasses.replace(one, state=_state(said.exit_code, settled(said, self._rules.health)),
                                           error="" if said.exit_code == DONE else said.error)  # fmt: skip
            planned = tq.ask("plan", limit, self._rules.command_timeout, wait=time.sleep)
        finally:
            tq.forget()
        if planned.exit_code not in (DONE, CHANGED):
            raise planned.failure()
        return dataclasses.replace(
            one,
            state="would-change" if planned.exit_code == CHANGED else "as-desired",
            release=planned.release,
            changes=planned.differences(),
            message=planned.facts().message,
        )


def _state(code: int, wrong: str) -> State:
    states: dict[int, State] = {DRIFT: "drift", ABSENT: "not-installed", UNHEALTHY: "unhealthy"}
    if code in states:
        return states[code]
    if code != DONE:
        return "failed"
    return "unhealthy" if wrong else "as-desired"
