"""The rules of a rollout, in Nomad's words, and what halts it: functions of what is known, without clock or network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from ..core.records import record
from .outcome import HostResult

Duration = (
    Annotated[str, Meta(pattern=r"^[0-9]{1,6}(?:\.[0-9]{1,3})?(?:ms|s|m|h)\Z")]
    | Annotated[float, Meta(ge=0, le=1_000_000)]
)
"""as in 10s or 5m; a number is seconds"""
Bound = Annotated[int, Meta(ge=0, le=100_000)] | Annotated[str, Meta(pattern=r"^(?:100|[0-9]{1,2})%\Z")]
"""a number of hosts, or a percentage of the wave's"""
Health = Literal["healthy", "gpu"]
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TWICE = 2


@record
class Rules:
    """How a rollout proceeds. Times are in seconds."""

    canary: int = 1
    """hosts of each wave that must be healthy before its others begin"""
    max_parallel: int = 1
    min_healthy_time: float = 10.0
    """how long a host must be healthy without a break"""
    healthy_deadline: float = 300.0
    """from the end of `tq apply` until it has been healthy for so long; else it counts as failed"""
    progress_deadline: float = 600.0
    """the same from the host's beginning, with all downloads: the limit of a host as a whole"""
    stagger: float = 30.0
    """pause between the end of one host and the begin of the next in its place"""
    poll: float = 2.0
    connect_timeout: float = 15.0
    command_timeout: float = 600.0
    auto_revert: bool | Literal["wave"] = True
    """after a halt, whether the hosts that the rollout changed go back: all, or those of the halted wave"""
    max_failures: int | str = 0
    """failed hosts of a wave that do not halt it"""
    max_unreachable: int | str = "100%"
    """unreachable hosts of a wave that do not halt it; a wave that nobody of was reached is always halted"""
    halt_on_same_error: bool = True
    """whether a second host with an error that another one had halts the rollout"""
    health: tuple[Health, ...] = ("healthy", "gpu")
    """what `tq status` must say, and of the GPU also `tq apply` where it changed something"""
    min_tokens_per_second: float = 0.0
    """of `speed_model`; 0: not measured"""
    speed_model: str = ""

    durations: ClassVar[tuple[str, ...]] = (
        "min_healthy_time", "healthy_deadline", "progress_deadline", "stagger", "poll", "connect_timeout",
        "command_timeout",
    )  # fmt: skip


def seconds(duration: str | float) -> float:
    """A duration in seconds."""
    if not isinstance(duration, str):
        return float(duration)
    number = duration.rstrip("msh")
    return float(number) * _UNITS[duration[len(number) :]]


def most(bound: int | str, hosts: int) -> int:
    """How many of so many hosts a bound allows."""
    return bound if isinstance(bound, int) else math.floor(hosts * int(bound.rstrip("%")) / 100)


def verdict(rules: Rules, wave: Sequence[HostResult], everyone: Sequence[HostResult]) -> str:
    """Why the rollout must halt, judged after each host of the wave; empty: it goes on.

    `wave` is in the order in which its hosts begin, so that the first ones that were reached are its canaries.
    """
    failed = [one for one in wave if one.outcome == "failed"]
    for one in failed:
        if one.error == "moved":
            return f"{one.name}: {one.message}"
        if one.error == "slow":
            return f"{one.name}: under the floor of tokens per second: {one.message}"
    reached = [one for one in wave if one.outcome not in ("unreachable", "rejected")]
    for one in reached[: rules.canary]:
        if one.outcome == "failed":
            return f"canary {one.name} failed: {one.message}"
    if len(failed) > (allowed := most(rules.max_failures, len(wave))):
        return f"{_named(failed)} failed, and {allowed} of {len(wave)} may: {failed[-1].message}"
    if rules.halt_on_same_error:
        same = Counter(one.error for one in everyone if one.outcome == "failed")
        for error, times in same.items():
            if times >= _TWICE and any(one.error == error for one in failed):
                return f"the same error on {times} hosts: {error}"
    away = [one for one in wave if one.outcome == "unreachable"]
    if len(away) > (allowed := most(rules.max_unreachable, len(wave))):
        return f"{_named(away)} unreachable, and {allowed} of {len(wave)} may be"
    return ""


def _named(hosts: Sequence[HostResult]) -> str:
    return ", ".join(one.name for one in hosts)


def nobody_reached(wave: Sequence[HostResult]) -> bool:
    """Whether a wave has ended without any host that could be asked."""
    return bool(wave) and all(one.outcome in ("unreachable", "rejected") for one in wave)


def canaries_missing(rules: Rules, wave: Sequence[HostResult]) -> int:
    """How many canaries must still become healthy before others may begin."""
    wanted = min(rules.canary, sum(one.outcome not in ("unreachable", "rejected") for one in wave))
    return max(0, wanted - sum(one.outcome in ("unchanged", "changed") for one in wave))
