"""The service: installed, upgraded, rolled back, killed at each step of each operation, crashing, and removed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence

from ...deploy import crashloop
from ...deploy.journal import INSTALL_STEPS, ROLLBACK_STEPS, UNINSTALL_STEPS
from ...stages import Deployment, Release
from .. import leftovers, toolkit
from ..assumption import Area, Assumption, Finding
from ..bench import Bench, Evidence
from ..findings import judged, require_release, untested
from ..service import Service
from ..toolkit import Answer

SECOND = "turbo2"
"""suffix of the second release, of the same sources"""
_START_S = 11.0
"""launchd starts a service every 10 s at most"""
_COMES_BACK_S = 60.0
_POLL_S = 0.25

_OF_TWO = ("deploy.upgrade", "deploy.rollback", "deploy.kill-install", "deploy.kill-rollback", "deploy.crash-loop")
"""assumptions that a second release is needed for"""

Operation = tuple[str, ...]


def _examine(bench: Bench) -> Iterator[Finding]:
    first = require_release(bench)
    service = Service(bench)
    bench.cleanup.callback(service.remove)
    yield from _installed(service, first)
    if service.status().active != first.id:
        return
    yield from _comes_back(service)
    second, built = _second(bench)
    if second is None:
        reason = f"no second release was built: {built.complaint}"
        yield from (untested(identifier, reason, built.evidence) for identifier in _OF_TWO)
    else:
        yield from _upgraded(service, first, second)
        yield survives(service, "deploy.kill-install", installs(service, first, second), INSTALL_STEPS)
        yield survives(service, "deploy.kill-rollback", rollbacks(service, first, second), ROLLBACK_STEPS)
        yield _falls_back(service, first, second)
    yield survives(service, "deploy.kill-uninstall", uninstalls(service, first), UNINSTALL_STEPS)
    yield _uninstalled(service, first)


def _installed(service: Service, release: Release) -> Iterator[Finding]:
    service.quicken()
    answer = service.install(release.id)
    now = service.after(answer)
    evidence = (answer.evidence, service.log())
    if not answer.ok or not now.healthy or now.active != release.id:
        yield judged("deploy.install", False, answer.complaint or now.reason or "another release is active", *evidence)
        return
    where = f"{release.id} is healthy at {now.service}, pid {now.pid}"
    yield judged("deploy.install", True, f"{where}, after {answer.evidence.seconds:.1f} s", *evidence)
    again = service.install(release.id)
    after = service.after(again)
    said = again.complaint or f"pid {now.pid} before and {after.pid} after, {again.evidence.seconds:.1f} s"
    yield judged("deploy.same-again", again.ok and after.pid == now.pid, said, again.evidence)


def _comes_back(service: Service) -> Iterator[Finding]:
    before = service.status()
    started = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(before.pid, signal.SIGKILL)
    after, told = service.await_health(lambda now: now.pid != before.pid)
    seconds = time.monotonic() - started
    holds = after.healthy and after.pid not in (0, before.pid)
    reason = f"pid {before.pid} was killed, pid {after.pid} is healthy after {seconds:.1f} s"
    yield judged(
        "deploy.comes-back", holds, reason if holds else f"after {seconds:.0f} s: {after.reason}", told, service.log()
    )


def _second(bench: Bench) -> tuple[Release | None, Answer]:
    """Another release of the same sources, of which only the version differs."""
    answer = toolkit.task(bench, "build", config=toolkit.with_suffix(bench.run.config, SECOND))
    return answer.read(Release) if answer.ok else None, answer


def _upgraded(service: Service, first: Release, second: Release) -> Iterator[Finding]:
    answer = service.install(second.id)
    now = service.after(answer)
    parent = f"its parent is {now.parent}"
    yield _activated("deploy.upgrade", answer, now, second, now.parent == first.id, parent)
    answer = service.task("deploy.rollback")
    yield _activated("deploy.rollback", answer, service.after(answer), first)


def _activated(
    identifier: str, answer: Answer, now: Deployment, release: Release, further: bool = True, words: str = ""
) -> Finding:
    """Whether a release is active, healthy and answers; `further` with its `words` is what else must hold."""
    holds = answer.ok and now.healthy and further and (now.active, now.version) == (release.id, release.version)
    told = f"version {now.version} answers after {answer.evidence.seconds:.1f} s{f'; {words}' if words else ''}"
    return judged(identifier, holds, told if holds else answer.complaint or now.reason or told, answer.evidence)


def installs(service: Service, first: Release, second: Release) -> Callable[[], tuple[Operation, set[str]]]:
    """Installs the one of two releases that is not active: the words of the task, and what may be active afterwards."""

    def prepare() -> tuple[Operation, set[str]]:
        now = service.status()
        if now.active not in (first.id, second.id) or not now.healthy:
            service.install(first.id)
            now = service.status()
        other = second.id if now.active == first.id else first.id
        return ("deploy.install", "--release", other), {first.id, second.id}

    return prepare


def rollbacks(service: Service, first: Release, second: Release) -> Callable[[], tuple[Operation, set[str]]]:
    """Goes to the other of two installed releases, as `installs`."""

    def prepare() -> tuple[Operation, set[str]]:
        for release in (first.id, second.id):
            if release not in service.status().releases:
                service.install(release)
        other = second.id if service.status().active == first.id else first.id
        return ("deploy.rollback", "--to", other), {first.id, second.id}

    return prepare


def uninstalls(service: Service, first: Release) -> Callable[[], tuple[Operation, set[str]]]:
    """Uninstalls a service that was installed, as `installs`."""

    def prepare() -> tuple[Operation, set[str]]:
        now = service.status()
        if not now.active or not now.healthy:
            service.install(first.id)
            now = service.status()
        return ("deploy.uninstall",), {"", now.active}

    return prepare


def survives(
    service: Service,
    identifier: str,
    prepare: Callable[[], tuple[Operation, set[str]]],
    steps: Sequence[str],
) -> Finding:
    """Kill an operation at each step: the next command must find one of the releases, healthy, and nothing left over.

    `prepare` brings the service to where the operation can begin, and returns its words and what may be active after.
    """
    evidence: list[Evidence] = []
    wrong, seen = [], []
    for step in steps:
        words, allowed = prepare()
        died = service.task(*words, kill_at=step)
        evidence.append(died.evidence)
        if died.evidence.code != -signal.SIGKILL or not service.died_at(step):
            wrong.append(f"{step}: it did not die there, but ended with {died.evidence.code}")
            continue
        after, told = service.told()
        evidence.append(told)
        wrong += [f"{step}: {problem}" for problem in service.problems(after, allowed)]
        seen.append(f"{step} -> {after.active or 'nothing'} in {told.seconds:.1f} s")
    if wrong:
        return judged(identifier, False, "; ".join(wrong), *evidence, service.log())
    return judged(identifier, True, f"after a SIGKILL at the beginning of {', '.join(seen)}", *evidence)


def _falls_back(service: Service, first: Release, second: Release) -> Finding:
    """Make the active release exit at once, as an update of the system may, and end its process."""
    words, _ = installs(service, first, second)()
    answer = service.install(words[-1])
    bad = service.status()
    if not answer.ok or not bad.healthy or not bad.parent:
        return untested("deploy.crash-loop", answer.complaint or f"no parent to go back to: {bad}", answer.evidence)
    program = service.prefix.release(bad.active) / "bin" / "ollama"
    broken = program.with_name("broken")
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    os.replace(broken, program)
    started = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(bad.pid, signal.SIGKILL)
    deadline = started + (crashloop.MOST_STARTS + 2) * _START_S + _COMES_BACK_S
    while not (service.prefix.run / "fallback").exists() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    after, told = service.await_health(lambda now: now.active == bad.parent)
    seconds = time.monotonic() - started
    holds = after.healthy and after.active == bad.parent and bool(after.fallback)
    reason = f"{after.fallback}, healthy {seconds:.0f} s after the first crash"
    return judged(
        "deploy.crash-loop",
        holds,
        reason if holds else f"after {seconds:.0f} s: {after.reason or f'{after.active} is active'}",
        told,
        service.log(),
    )


def _uninstalled(service: Service, first: Release) -> Finding:
    if not service.status().active:
        service.install(first.id)
    answer = service.task("deploy.uninstall")
    after = service.after(answer)
    left = [answer.complaint] if answer.complaint else []
    left += leftovers.of_uninstall(service.prefix, service.definition)
    left += [f"{after.active} is active at {after.service}"] if after.active or after.service else []
    reason = "neither a job, nor a definition, nor a release, nor a process; the logs stay"
    return judged("deploy.uninstall", not left, "; ".join(left) or reason, answer.evidence)


AREA = Area(
    name="deploy",
    assumptions=(
        Assumption(
            id="deploy.install",
            statement="A built release can be installed as a service of this machine's manager and is healthy then: it "
            "answers with its version, generates text with its cache type, and runs on.",
            how="deploy.install of what was built, with this run's own label, prefix and port.",
        ),
        Assumption(
            id="deploy.same-again",
            statement="Installing the running release once more changes nothing: the same process serves on.",
            how="deploy.install once more, and the pid before and after.",
        ),
        Assumption(
            id="deploy.comes-back",
            statement="A service whose process is killed is started again by the manager, and is healthy.",
            how="SIGKILL to the service's process, then deploy.status until it is healthy.",
        ),
        Assumption(
            id="deploy.upgrade",
            statement="Another release replaces the running one, which becomes its parent.",
            how="The sources are built with another suffix, and installed.",
        ),
        Assumption(
            id="deploy.rollback",
            statement="A rollback brings the parent back, healthy.",
            how="deploy.rollback.",
        ),
        Assumption(
            id="deploy.kill-install",
            statement="After a SIGKILL at any step of an install the next command finds one of the two releases "
            "active and healthy, and nothing left over.",
            how="deploy.install dies at the beginning of each step of its journal; then deploy.status.",
        ),
        Assumption(
            id="deploy.kill-rollback",
            statement="After a SIGKILL at any step of a rollback the next command finds one of the two releases "
            "active and healthy, and nothing left over.",
            how="deploy.rollback dies at the beginning of each step of its journal; then deploy.status.",
        ),
        Assumption(
            id="deploy.crash-loop",
            statement="A release that keeps exiting gives way to its parent without any command.",
            how="The program of the active release is replaced by one that exits; then only the manager acts.",
        ),
        Assumption(
            id="deploy.kill-uninstall",
            statement="After a SIGKILL at any step of an uninstall the next command ends it, and leaves nothing.",
            how="deploy.uninstall dies at the beginning of each step of its journal; then deploy.status.",
        ),
        Assumption(
            id="deploy.uninstall",
            statement="An uninstall leaves neither a job nor a property list, release or process; only the logs.",
            how="deploy.uninstall, then a look at files, jobs and processes.",
        ),
    ),
    examine=_examine,
)
