"""One host's part of a rollout: facts, plan, apply, the stability window; or the way back."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ..core.deadline import Deadline
from ..core.delivery_errors import HostKeyRejected
from .connection import Remote, TimedOut, Unreachable
from .inventory import Host
from .outcome import Facts, HostResult
from .provisioner import ABSENT, CHANGED, DONE, DRIFT, Kit, Provisioner, TqAnswer, TqFailed, explained, settled
from .rules import Rules

_TRIES = 2
"""how often apply is started on a host whose connection broke meanwhile"""


class Tell(Protocol):
    """Writes an event of this host into the journal."""

    def __call__(self, event: Any, /, **fields: Any) -> None:
        """Returns when the disk has it."""


class Stopped(Exception):
    """The controller was interrupted: what runs on the host is left to tq."""


class Visit:
    """The work on a host, in a thread of its own. `known` is what the journal already has of it."""

    def __init__(
        self,
        host: Host,
        known: HostResult,
        rules: Rules,
        kit: Kit,
        *,
        rollout: str,
        release: str,
        agree: Callable[[Host, str], str],
        tell: Tell,
        detail: Callable[[str], None],
        stopping: threading.Event,
    ) -> None:
        """`agree` says why a release is not this rollout's; empty: it is."""
        self._host, self._known, self._rules, self._kit = host, known, rules, kit
        self._rollout, self._release, self._agree = rollout, release, agree
        self._tell, self._detail, self._stopping = tell, detail, stopping

    def update(self) -> None:
        """Bring the host to its desired state, and tell how that ended. Raises `Stopped`."""
        started = time.monotonic()
        limit = Deadline(self._rules.progress_deadline)
        self._tell("begun")
        try:
            with Remote(self._host, limit, self._rules.connect_timeout) as remote:
                ended = self._updated(self._provisioner(remote), remote, limit)
        except HostKeyRejected as error:
            ended = {"outcome": "rejected", **explained(error)}
        except Unreachable as error:
            lost = "lost while tq changed it: " if self._known.touched and "lost" not in str(error) else ""
            ended = {"outcome": "unreachable", **explained(error), "message": f"{lost}{error}"}
        except (TimedOut, TqFailed) as error:
            ended = {"outcome": "failed", **explained(error)}
        self._tell("ended", **ended, seconds=round(time.monotonic() - started, 3))

    def revert(self) -> None:
        """Go back to the release that was active before the rollout, and tell how that ended. Raises `Stopped`."""
        limit = Deadline(self._rules.progress_deadline)
        try:
            with Remote(self._host, limit, self._rules.connect_timeout) as remote:
                ended = self._reverted(self._provisioner(remote), limit)
        except (HostKeyRejected, Unreachable) as error:
            ended = {"revert": "unreachable", "message": str(error)}
        except (TqFailed, TimedOut) as error:
            ended = {"revert": "failed", "message": str(error)}
        self._tell("reverted", **ended)

    def _provisioner(self, remote: Remote) -> Provisioner:
        return Provisioner(self._host, remote, self._kit, self._release, rollout=self._rollout)

    def _updated(self, tq: Provisioner, remote: Remote, limit: Deadline) -> dict[str, Any]:
        tq.prepare()
        status = self._ask(tq, "status", limit)
        self._tell("found", facts=status.facts())
        plan = self._ask(tq, "plan", limit)
        if plan.exit_code not in (DONE, CHANGED):
            raise plan.failure()
        self._tell("planned", release=plan.release, changes=plan.differences())
        if wrong := self._agree(self._host, plan.release):
            raise TqFailed("moved", wrong, "fleet.apply --abandon begins a rollout of what is named now")
        touched, gpu = self._known.touched, None
        if plan.exit_code == CHANGED or settled(status, self._rules.health):
            self._wait(0)
            self._tell("applying")
            applied = self._applied(tq, remote, limit)
            if applied.exit_code not in (DONE, CHANGED):
                raise applied.failure()
            touched = touched or applied.exit_code == CHANGED
            self._tell("applied", changes=applied.differences())
            gpu = applied.gpu
            if "gpu" in self._rules.health and applied.exit_code == CHANGED and not gpu:
                raise TqFailed("no-gpu", "tq did not see the GPU in use", "`health: [healthy]` for hosts without one")
        facts = self._stable(tq, remote, limit, self._rules.min_healthy_time if touched else 0.0)
        speed = self._speed(tq)
        facts = dataclasses.replace(facts, gpu=gpu if facts.gpu is None else facts.gpu)
        return {"outcome": "changed" if touched else "unchanged", "facts": facts, "tokens_per_second": speed}

    def _applied(self, tq: Provisioner, remote: Remote, limit: Deadline) -> TqAnswer:
        """tq's answer to apply; where the connection breaks meanwhile, what the host says once it is back."""
        for _ in range(_TRIES):
            try:
                return self._ask(tq, "apply", limit)
            except Unreachable as error:
                lost = error
            self._detail(f"{lost}; waiting for it")
            status = self._back(tq, remote, limit.within(self._rules.healthy_deadline), limit, lost)
            if status.exit_code == DONE:
                return status
        raise lost

    def _back(self, tq: Provisioner, remote: Remote, until: Deadline, limit: Deadline, lost: Unreachable) -> TqAnswer:
        while True:
            self._wait(self._rules.poll)
            try:
                return self._ask(tq, "status", limit)
            except Unreachable as error:
                if until.passed:
                    raise Unreachable(f"lost while tq changed it: {lost}; since then: {error}") from error
                remote.close()

    def _stable(self, tq: Provisioner, remote: Remote, limit: Deadline, time_s: float) -> Facts:
        """What the host is, once it has been as the rules require for so long. Raises `TqFailed`, `Unreachable`."""
        until = limit.within(self._rules.healthy_deadline)
        since: float | None = None
        while True:
            lost: Unreachable | None = None
            try:
                status = self._ask(tq, "status", limit)
                wrong = settled(status, self._rules.health)
            except Unreachable as error:
                remote.close()
                lost, wrong = error, str(error)
            now = time.monotonic()
            since = None if wrong else now if since is None else since
            if since is not None and now - since >= time_s:
                return status.facts()
            if until.passed:
                if lost:
                    raise lost
                word = "no-gpu" if "GPU" in wrong else "unhealthy"
                raise TqFailed(word, f"not healthy for {time_s:g} s within {until.seconds:g} s: {wrong or 'too late'}")
            left = until.left if since is None else time_s - (now - since)
            self._detail(wrong or f"healthy, {left:.0f} s to go")
            self._wait(max(0.05, min(self._rules.poll, left)))

    def _speed(self, tq: Provisioner) -> float:
        rules = self._rules
        if not rules.speed_model:
            return 0.0
        found = round(tq.speed(rules.speed_model, 120.0), 2)
        if found < rules.min_tokens_per_second:
            raise TqFailed("slow", f"{found:g} tokens/s, not {rules.min_tokens_per_second:g}")
        return found

    def _reverted(self, tq: Provisioner, limit: Deadline) -> dict[str, Any]:
        before = self._known.before
        if before is None or not before.release:
            return {"revert": "nothing-before", "message": "nothing was installed before; it stays as it is"}
        tq.prepare()
        status = self._ask(tq, "status", limit)
        if not status.release and status.exit_code != ABSENT:
            raise status.failure()  # what it runs is unknown
        by_tq = status.release == before.release and (
            self._known.release != before.release or (self._known.outcome == "failed" and not self._known.applied)
        )
        if by_tq:
            tq.restore_desired()
            done = status
        elif status.release != before.release:
            done = self._gone_back(tq, before.release, limit)
            tq.restore_desired()
        else:
            if not tq.restore_desired():
                raise TqFailed("revert", "it has the release of before, but its settings of before are unknown")
            done = self._ask(tq, "apply", limit)
        if not by_tq and done.exit_code not in (DONE, CHANGED, DRIFT):
            raise done.failure()
        until = limit.within(self._rules.healthy_deadline)
        while True:
            status = self._ask(tq, "status", limit)
            wrong = _not_as_before(status, before, unknown=by_tq)
            if not wrong:
                said = "tq itself left it as it was, or went back" if by_tq else ""
                return {"revert": "by-tq" if by_tq else "reverted", "facts": status.facts(), "message": said}
            if until.passed or "instead" in wrong:
                raise TqFailed("revert", wrong)
            self._wait(self._rules.poll)

    def _gone_back(self, tq: Provisioner, release: str, limit: Deadline) -> TqAnswer:
        """tq's answer to rollback. Where that does not end at the release of before, tq gets it as a desired state.

        A release that keeps exiting is given up by the service's own shim, too. tq settles that first, and its rollback
        would then go one release too far, or find none.
        """
        done = self._ask(tq, "rollback", limit)
        status = self._ask(tq, "status", limit)
        if status.release == release:
            return status if done.exit_code not in (DONE, CHANGED) and status.healthy else done
        tq.pin(release)
        return self._ask(tq, "apply", limit)

    def _ask(self, tq: Provisioner, verb: str, limit: Deadline) -> TqAnswer:
        self._detail(f"tq {verb}")
        return tq.ask(verb, limit, self._rules.command_timeout, on_line=self._detail, wait=self._wait)

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds) if seconds else self._stopping.is_set():
            raise Stopped


def _not_as_before(status: TqAnswer, before: Facts, *, unknown: bool) -> str:
    """What is not as before; empty: nothing. `unknown`: where tq does not say whether it is healthy, it is."""
    if status.release != before.release:
        return f"it runs {status.release or 'nothing'} instead of {before.release}"
    if before.healthy and (status.healthy is False or not (status.healthy or unknown)):
        return f"it was healthy before, and is not: {status.message}"
    return ""
