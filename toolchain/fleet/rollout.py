"""A rollout: waves of hosts, canaries first, halted by the rules, and taken back where it was halted."""

from __future__ import annotations

import functools
import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from ..core.console import Console, Step
from ..core.errors import ToolchainError
from ..core.printable import printable
from . import rules as ruling
from .crew import Crew, Overdue
from .inventory import Host, Inventory
from .journal import Event, Journal, Rollout, after, now, results
from .outcome import HostResult
from .provisioner import Kit
from .visit import Stopped, Visit

_BACK_AT_ONCE = 8
"""hosts that go back at the same time: each is on its own, and its users wait"""
_OVERDUE_S = 60.0
_IDLE_S = 3600.0


class Engine:
    """Carries a rollout on from where its journal ends."""

    def __init__(self, journal: Journal, kit: Kit, console: Console) -> None:
        self._journal, self._kit, self._console = journal, kit, console
        self._rollout: Rollout = journal.state
        self._inventory: Inventory = self._rollout.inventory
        self._rules = self._inventory.rules
        events = journal.events()
        self._results = results(self._inventory, events)
        self._halted = next((event for event in reversed(events) if event.event == "halted"), None)
        self._agreed: dict[tuple[str, ...], str] = {}
        for host in self._inventory.hosts:
            if known := self._results[host.name].release:
                self._agreed.setdefault(_source(host), known)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._given_up: set[object] = set()
        self._tokens: dict[str, object] = {}
        self._step: Step | None = None

    @property
    def results(self) -> dict[str, HostResult]:
        """What is known of each host."""
        return self._results

    def go(self) -> None:
        """To the end, or to a halt and back. An interrupt lets what runs come to a safe place, and is raised again."""
        crew = Crew(self._rules.max_parallel)
        try:
            self._forward(crew)
            if self._halted and self._rules.auto_revert:
                crew = Crew(_BACK_AT_ONCE)
                self._back(crew, self._to_revert())
        except BaseException:
            self._interrupted(crew)
            raise
        self._write(Event(at=now(), event="finished"))
        self._journal.end("halted" if self._halted else "done")

    def take_back(self) -> None:
        """Every host that the rollout changed goes back, on request."""
        crew = Crew(_BACK_AT_ONCE)
        try:
            self._back(crew, [host for host in self._inventory.hosts if self._can_go_back(host, again=True)])
        except BaseException:
            self._interrupted(crew)
            raise
        self._write(Event(at=now(), event="finished"))
        self._journal.end("rolled-back")

    def _forward(self, crew: Crew) -> None:
        slots = [0.0] * self._rules.max_parallel
        for number in self._inventory.waves:
            hosts = [host for host in self._inventory.hosts if host.wave == number]
            if not self._halted:
                self._wave(crew, slots, hosts, f"wave {number}: {_number(hosts)}", again=False)
            if not self._halted and ruling.nobody_reached(self._of(hosts)):
                rejected = any(one.outcome == "rejected" for one in self._of(hosts))
                self._halt(number, "nobody of the wave was reached", "host-key" if rejected else "unreachable")
        away = [host for host in self._inventory.hosts if self._results[host.name].outcome == "unreachable"]
        if away and not self._halted:
            self._write(Event(at=now(), event="retrying", message=", ".join(host.name for host in away)))
            self._wave(crew, slots, away, f"once more: {_number(away)} unreachable", again=True)

    def _wave(self, crew: Crew, slots: list[float], hosts: Sequence[Host], title: str, *, again: bool) -> None:
        """Hosts one after the other, as many at once as the rules allow. `slots` has when each place is free again."""
        waiting = deque(host for host in hosts if again or not self._results[host.name].ended)
        if not waiting:
            self._judge(hosts)
            return
        with self._console.step(title) as self._step:
            while True:
                self._judge(hosts)
                pause = _IDLE_S
                while waiting and not self._halted and not crew.full and self._may_begin(crew, hosts, again=again):
                    if (pause := slots[0] - time.monotonic()) > 0:
                        break
                    heapq.heappop(slots)
                    self._start(crew, waiting.popleft())
                    pause = _IDLE_S
                if not crew.running and (not waiting or self._halted):
                    return
                if ended := crew.ended(pause):
                    heapq.heappush(slots, time.monotonic() + self._rules.stagger)
                    self._end(*ended)
                    done = sum(one.ended for one in self._of(hosts))
                    self._step.update(done, len(hosts), f"{done} of {len(hosts)}")

    def _may_begin(self, crew: Crew, hosts: Sequence[Host], *, again: bool) -> bool:
        """Whether another host may begin: not while canaries are still to be proven by those that run."""
        missing = 0 if again else ruling.canaries_missing(self._rules, self._of(hosts))
        return missing == 0 or len(crew.running) < missing

    def _start(self, crew: Crew, host: Host) -> None:
        visit, token = self._visit(host)

        def work() -> None:
            visit.update()
            one = self._results[host.name]
            if one.outcome == "failed" and one.touched and self._rules.auto_revert and token not in self._given_up:
                self._tell(host, token, "reverting")
                self._visit(host, token)[0].revert()

        self._run(crew, host, work, token, 2 * self._rules.progress_deadline)

    def _run(self, crew: Crew, host: Host, work: Callable[[], None], token: object, limit_s: float) -> None:
        self._tokens[host.name] = token
        crew.start(host.name, work, limit_s + _OVERDUE_S)

    def _visit(self, host: Host, token: object | None = None) -> tuple[Visit, object]:
        token = token or object()
        visit = Visit(
            host, self._results[host.name], self._rules, self._kit,
            rollout=self._rollout.id, release=self._rollout.release, agree=self._agree,
            tell=functools.partial(self._tell, host, token), detail=functools.partial(self._detail, host),
            stopping=self._stopping,
        )  # fmt: skip
        return visit, token

    def _end(self, name: str, error: BaseException | None) -> None:
        """A thread has ended: its own events say how, unless it is overdue or has a bug."""
        if isinstance(error, Overdue):
            with self._lock:
                self._given_up.add(self._tokens[name])
            one = self._results[name]
            if one.ended:  # it was on its way back
                self._write(Event(at=now(), event="reverted", host=name, revert="unreachable", message="no answer"))
            else:
                why = "it gave no sign of life"
                self._write(
                    Event(at=now(), event="ended", host=name, outcome="unreachable", error="unreachable", message=why)
                )
        elif error is not None and not isinstance(error, Stopped):
            raise error

    def _judge(self, hosts: Sequence[Host]) -> None:
        for number in dict.fromkeys(host.wave for host in hosts):
            wave = [one for one in self._results.values() if one.wave == number]
            if not self._halted and (why := ruling.verdict(self._rules, wave, tuple(self._results.values()))):
                self._halt(number, why, "rules")

    def _halt(self, wave: int, why: str, error: str) -> None:
        self._halted = Event(at=now(), event="halted", wave=wave, message=why, error=error)
        self._write(self._halted)
        self._console.warn(f"halted in wave {wave}: {why}")

    def _to_revert(self) -> list[Host]:
        only = self._halted.wave if self._halted and self._rules.auto_revert == "wave" else None
        return [host for host in self._inventory.hosts if host.wave in (only or host.wave,) and self._can_go_back(host)]

    def _can_go_back(self, host: Host, *, again: bool = False) -> bool:
        """Whether this rollout may have changed it, and it is not back; `again`: also where that failed."""
        one = self._results[host.name]
        return (
            one.touched
            and one.outcome != "unchanged"
            and one.revert in ("", "unreachable", *(("failed",) if again else ()))
        )

    def _back(self, crew: Crew, hosts: Sequence[Host]) -> None:
        waiting = deque(hosts)
        if not waiting:
            return
        with self._console.step(f"going back: {_number(hosts)}") as self._step:
            while waiting or crew.running:
                while waiting and not crew.full:
                    host = waiting.popleft()
                    visit, token = self._visit(host)
                    self._tell(host, token, "reverting")
                    self._run(crew, host, visit.revert, token, self._rules.progress_deadline)
                if ended := crew.ended(_IDLE_S):
                    self._end(*ended)
                    self._step.update(len(hosts) - len(waiting) - len(crew.running), len(hosts))

    def _interrupted(self, crew: Crew) -> None:
        """No host begins; those under way come to where tq can be left alone."""
        self._stopping.set()
        if crew.running:
            self._console.note(f"interrupted; waiting for tq on {', '.join(crew.running)}")
        while crew.running:
            crew.ended(_IDLE_S)
        with suppress(ToolchainError, OSError):  # what ended it may be a full disk
            self._write(Event(at=now(), event="interrupted"))

    def _agree(self, host: Host, release: str) -> str:
        """The first host of a source of releases says which one the rollout is of; all others must get the same."""
        with self._lock:
            agreed = self._agreed.setdefault(_source(host), release)
        return "" if agreed == release else f"the channel names {release} now, and this rollout is of {agreed}"

    def _tell(self, host: Host, token: object, event: Any, /, **fields: Any) -> None:
        with self._lock:
            if token in self._given_up:
                return
        self._write(Event(at=now(), event=event, host=host.name, wave=host.wave, **fields))

    def _write(self, event: Event) -> None:
        self._journal.add(event)
        if event.host:
            with self._lock:
                one = self._results[event.host] = after(self._results[event.host], event)
            if line := _line(event, one):
                self._console.note(f"  {event.host}: {line}")

    def _detail(self, host: Host, text: str) -> None:
        if step := self._step:
            step.update(detail=f"{host.name}: {text}")

    def _of(self, hosts: Iterable[Host]) -> list[HostResult]:
        return [self._results[host.name] for host in hosts]


def _number(hosts: Sequence[Host]) -> str:
    return "1 host" if len(hosts) == 1 else f"{len(hosts)} hosts"


def _source(host: Host) -> tuple[str, ...]:
    return tuple(host.desired.get(key, "") for key in ("channel_url", "channel", "release", "state"))


def _line(event: Event, one: HostResult) -> str:
    """What a user sees of an event."""
    match event.event:
        case "begun":
            return "begins" if one.attempts == 1 else f"begins, attempt {one.attempts}"
        case "applying":
            return f"tq apply: {one.before.release if one.before else '?'} -> {one.release or 'as desired'}"
        case "ended":
            why = f": {printable(event.message)}" if event.message else ""
            return f"{event.outcome}{why} ({event.seconds:.1f} s)"
        case "reverting":
            return "goes back"
        case "reverted":
            return f"{event.revert}{': ' if event.message else ''}{event.message}"
    return ""
