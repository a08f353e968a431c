"""Rollouts, and what the hosts of a fleet are."""

from __future__ import annotations

from ..fleet.outcome import Change, HostResult
from ..fleet.report import FleetReport
from ..fleet.survey import FleetPlan, FleetStatus, Surveyed
from .dispatch import as_text


@as_text.register
def _report(found: FleetReport) -> str:
    """A line for each host, below its wave."""
    lines = [f"rollout {found.rollout}: {found.end or 'unfinished'}, {found.seconds:.1f} s"]
    if found.halted_wave:
        lines.append(f"  halted in wave {found.halted_wave}: {found.halted_because}")
    for wave in found.waves:
        lines.append(f"  wave {wave.number}")
        lines += [f"    {_host(one)}" for one in wave.hosts]
    return "\n".join(lines)


def _host(one: HostResult) -> str:
    before = (one.before.release if one.before else "") or "-"
    after = (one.after.release if one.after else "") or "-"
    why = f"  {one.message}" if one.message else ""
    back = f"  [{one.revert}{': ' + one.revert_message if one.revert_message else ''}]" if one.revert else ""
    return f"{one.name:<16} {one.outcome:<12} {before} -> {after}  {one.seconds:.1f} s{why}{back}"


@as_text.register
def _plan(plan: FleetPlan) -> str:
    """What each host would get."""
    return "\n".join(_surveyed(one, f"-> {one.release}" if one.release else "") for one in plan.hosts)


@as_text.register
def _status(status: FleetStatus) -> str:
    """What each host is."""
    return "\n".join(_surveyed(one, _facts(one)) for one in status.hosts)


def _facts(one: Surveyed) -> str:
    if not one.facts or not one.facts.release:
        return ""
    gpu = {True: ", on the GPU", False: ", NOT on the GPU", None: ""}[one.facts.gpu]
    health = {True: "healthy", False: "NOT healthy", None: "health unknown"}[one.facts.healthy]
    return f"{one.facts.release} ({health}{gpu})"


def _surveyed(one: Surveyed, what: str) -> str:
    why = f"  {one.message}" if one.message and one.state != "as-desired" else ""
    lines = [f"wave {one.wave:<3} {one.name:<16} {one.state:<13} {what}{why}".rstrip()]
    return "\n".join([*lines, *(f"           {_change(change)}" for change in one.changes)])


def _change(change: Change) -> str:
    return f"{change.what}: {change.is_ or '-'} -> {change.wanted or '-'}"
