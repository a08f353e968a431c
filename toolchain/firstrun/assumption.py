"""An assumption of the toolkit about the machine that it runs on, what was found, and what it was found with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from ..core.errors import ToolchainError
from ..core.records import record
from .bench import Bench, Evidence

Status: TypeAlias = Literal["confirmed", "refuted", "not tested"]
MACOS, ROOT = "macOS", "root"
"""what `Assumption.needs` may name that `probed` looks at"""


@record
class Assumption:
    """What the toolkit takes for granted. `id` is unique: launchd.kickstart-kills."""

    id: str
    statement: str
    needs: str = ""
    """what a machine must have so that it can be tested: macOS, a Metal GPU, root; empty if nothing"""
    how: str = ""
    """how it is tested, in a sentence"""
    portable: bool = False
    """whether what another system than macOS shows counts for a Mac, too"""


def assumed(area: str, id: str, statement: str, how: str, needs: str = "") -> Assumption:
    """An assumption of an area; `id` is that within it."""
    return Assumption(id=f"{area}.{id}", statement=statement, how=how, needs=needs)


@record
class Finding:
    """What one run found of an assumption. `reason` says what was seen, or why it was not tested."""

    id: str
    status: Status
    reason: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Area:
    """Assumptions that are tested together.

    `examine` yields a finding as soon as there is one, in any order. What it yields nothing about was not tested: the
    run says so with the error that ended `examine`, or with the assumption's `needs`.
    """

    name: str
    assumptions: tuple[Assumption, ...]
    examine: Callable[[Bench], Iterator[Finding]]


@record
class Verdict:
    """A finding without the id of its assumption."""

    status: Status
    reason: str
    evidence: tuple[Evidence, ...] = ()

    def on(self, identifier: str) -> Finding:
        """The finding on that assumption."""
        return Finding(id=identifier, status=self.status, reason=self.reason, evidence=self.evidence)


def confirmed(reason: str, *evidence: Evidence) -> Verdict:
    """It is as the assumption says."""
    return Verdict(status="confirmed", reason=reason, evidence=evidence)


def refuted(reason: str, *evidence: Evidence) -> Verdict:
    """It is not as the assumption says."""
    return Verdict(status="refuted", reason=reason, evidence=evidence)


def untested(reason: str, *evidence: Evidence) -> Verdict:
    """Nothing could be found out."""
    return Verdict(status="not tested", reason=reason, evidence=evidence)


def judged(holds: bool, reason: str, *evidence: Evidence) -> Verdict:
    """Confirmed or refuted."""
    return confirmed(reason, *evidence) if holds else refuted(reason, *evidence)


@dataclass(frozen=True)
class Probe:
    """One assumption, and what tests it."""

    assumption: Assumption
    test: Callable[[Bench], Verdict]


def probed(name: str, *probes: Probe) -> Area:
    """An area whose assumptions are tested one after the other; what fails in one does not end the others."""

    def examine(bench: Bench) -> Iterator[Finding]:
        for probe in probes:
            yield _verdict(probe, bench).on(probe.assumption.id)

    return Area(name=name, assumptions=tuple(probe.assumption for probe in probes), examine=examine)


def _verdict(probe: Probe, bench: Bench) -> Verdict:
    needs = probe.assumption.needs
    if MACOS in needs and not bench.on_mac:
        return untested(f"needs {needs}")
    if ROOT in needs and not bench.privileged:
        return untested(f"needs {needs}: run it with sudo")
    begun, started = len(bench.kept), time.monotonic()
    try:
        found = probe.test(bench)
        if found.evidence or found.status == "not tested":
            return found
        what = f"[within the toolkit] {probe.assumption.id}: {probe.assumption.how}"
        bench.keep(what, int(found.status == "refuted"), time.monotonic() - started, f"{found.reason}\n")
        return replace(found, evidence=tuple(bench.kept[begun:]))
    except (ToolchainError, OSError, ValueError, LookupError) as error:
        return untested(said(error), *bench.kept[begun:])


def said(error: Exception) -> str:
    """What an error says, with its kind where the text alone would be a riddle."""
    if isinstance(error, ToolchainError):
        return error.message
    return str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
