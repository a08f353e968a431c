"""What makes a measurement void: it says why, and the run does not pass.

    battery    on battery, or in Low Power Mode
    thermal    the machine throttles itself
    load       other programs used the CPU, or the GPU before the measurement, beyond a share (`validate.load`)
    cache      the prompt, or a part of it, came from a cache
    proof      nothing states the cache type

An operator may accept a kind with `--accept-void`; the result then says so. What cannot be learned here is a note, not
a void.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol
from urllib.parse import urlsplit

from ..core.records import record
from ..host.conditions import THERMAL_LEVELS, Conditions, Observer
from ..host.ports import listeners
from .endpoint import Endpoint, Generated
from .plan import Plan
from .result import TestResult

KINDS = ("battery", "thermal", "load", "cache", "proof")
_NUMBER = re.compile(r"\d+")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVERY_S = 5.0
_LOG_S = 3.0
_SPECIAL = 2
"""tokens that every prompt of a model starts with, at most"""
_READ = re.compile(r"prompt eval time = {1,20}\d{1,12}\.\d{1,3} ms / {1,20}(\d{1,9}) tokens")


class Looks(Protocol):
    """See `toolchain.host.conditions.Observer`."""

    def look(self) -> Conditions:
        """The conditions now."""
        ...


@record
class Seen:
    """The worst of all looks during one measurement, and how many there were."""

    looks: int
    on_battery: bool | None = None
    low_power: bool | None = None
    thermal: str | None = None
    foreign_cpu: float | None = None
    """the mean: short peaks are spread over the measurement"""
    gpu_before: float | None = None


class Watch:
    """Looks at the machine before, during and after what its `with` block measures. One block at a time."""

    def __init__(self, observer: Looks, every_s: float = _EVERY_S) -> None:
        self._observer, self._every_s = observer, every_s
        self._looks: list[Conditions] = []
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self._looks = [self._observer.look()]
        self._over.clear()
        self._thread = threading.Thread(target=self._run, name="conditions", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread
        self._over.set()
        self._thread.join()
        self._looks.append(self._observer.look())

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._looks.append(self._observer.look())

    @property
    def seen(self) -> Seen:
        """What the last block saw."""
        looks = self._looks
        known = [one.thermal for one in looks if one.thermal is not None]
        shares = [one.foreign_cpu for one in looks[1:] if one.foreign_cpu is not None]
        return Seen(
            looks=len(looks),
            on_battery=_any([one.on_battery for one in looks]),
            low_power=_any([one.low_power for one in looks]),
            thermal=next((one for one in known if one != THERMAL_LEVELS[0]), known[0] if known else None),
            foreign_cpu=sum(shares) / len(shares) if shares else None,
            gpu_before=looks[0].gpu,
        )


def observer(plan: Plan) -> Observer:
    """Looks at this machine; running servers that the plan names are ours, where they are on it."""
    pids = set[int]()
    for url in filter(None, (plan.baseline_url, plan.candidate_url)):
        parts = urlsplit(url)
        if parts.hostname in _LOOPBACK and parts.port:
            pids |= set(filter(None, listeners(parts.port)))
    return Observer(pids)


def complaints(seen: Seen, load: float) -> tuple[str, ...]:
    """What was wrong, each as `KIND: why`. `load` is the largest share of others that does no harm."""
    found = []
    if seen.on_battery:
        found.append("battery: the machine was on battery")
    if seen.low_power:
        found.append("battery: Low Power Mode was on")
    if seen.thermal not in (None, THERMAL_LEVELS[0]):
        found.append(f"thermal: the thermal pressure was {seen.thermal}")
    if seen.foreign_cpu is not None and seen.foreign_cpu > load:
        found.append(f"load: other programs had {seen.foreign_cpu:.0%} of the CPU (at most {load:.0%})")
    if seen.gpu_before is not None and seen.gpu_before > load:
        found.append(f"load: the GPU was {seen.gpu_before:.0%} busy before it began (at most {load:.0%})")
    return tuple(found)


def summed_up(found: Sequence[str]) -> tuple[str, ...]:
    """One complaint of each sort, that with the highest numbers, and in how many measurements."""
    sorts: dict[str, list[str]] = {}
    for one in found:
        sorts.setdefault(_NUMBER.sub("#", one), []).append(one)
    worst = (max(same, key=lambda one: [int(number) for number in _NUMBER.findall(one)]) for same in sorts.values())
    counts = (len(same) for same in sorts.values())
    return tuple(one if count == 1 else f"{one}, {count} times" for one, count in zip(worst, counts, strict=True))


def unknown(seen: Seen) -> tuple[str, ...]:
    """What could not be learned on this machine, in words."""
    named = {"power source": seen.on_battery, "thermal pressure": seen.thermal, "load of others": seen.foreign_cpu}
    return tuple(name for name, value in named.items() if value is None)


def cached_tokens(endpoint: Endpoint, answer: Generated, mark: int) -> int | None:
    """How many tokens of a prompt were not read, but taken from a cache; None where nothing tells.

    Ollama adds them to those that it read, so there the log since its size `mark` says how many were read.
    """
    if endpoint.backend == "llama-server":
        return answer.counters.cached
    if endpoint.log is None:
        return None
    deadline = time.monotonic() + _LOG_S
    while True:
        with endpoint.log.open("rb") as file:
            file.seek(mark)
            found = _READ.findall(file.read().decode(errors="replace"))
        if found:
            return max(0, answer.counters.prompt - int(found[-1]))
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)


def log_mark(endpoint: Endpoint) -> int:
    """The size of the log now."""
    return endpoint.log.stat().st_size if endpoint.log else 0


def cache_complaint(cached: int | None) -> tuple[str, ...]:
    """A prompt that came from a cache. What every prompt of a model starts with may."""
    return (f"cache: {cached} tokens of a prompt came from a cache",) if cached and cached > _SPECIAL else ()


def accepted(result: TestResult, kinds: Collection[str]) -> TestResult:
    """The result without the voids that the operator accepts; they become notes."""
    kept = tuple(one for one in result.voids if one.partition(":")[0] not in kinds)
    taken = tuple(f"void, accepted by the operator: {one}" for one in result.voids if one not in kept)
    return replace(result, voids=kept, notes=(*result.notes, *taken)) if taken else result


def _any(values: Sequence[bool | None]) -> bool | None:
    known = [value for value in values if value is not None]
    return any(known) if known else None
