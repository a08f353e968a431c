"""The report of a dispatch: counters, results, and the kernel's errors as sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .instrument import Profile

PLACES = ("device", "constant", "threadgroup", "thread")
MEETINGS = (
    "simd reduction", "simd prefix", "simd prefix", "simd shuffle", "simd shuffle", "simd shuffle", "simd shuffle",
    "simd shuffle", "simd shuffle", "simd broadcast", "simd vote", "matrix multiply", "matrix load", "matrix store",
    "simdgroup barrier", "threadgroup barrier",
)  # fmt: skip
KINDS = (
    "out-of-bounds", "uninitialised-threadgroup-read", "race", "divergence", "barrier-not-met", "time-limit", "crash",
    "lockstep", "division-by-zero",
)  # fmt: skip
VARIABLES = 1000  # indices of variables start here, see runtime/memory.h
_SIGNALS = {4: "an illegal instruction", 5: "a trap", 6: "abort", 7: "a bus error", 8: "a division by zero",
            10: "a bus error", 11: "an access to unmapped memory"}  # fmt: skip


@dataclass(frozen=True)
class RawFinding:
    """A finding as the executor prints it; see runtime/state.h."""

    kind: int
    site: int
    other_site: int
    lane: int
    other_lane: int
    place: int
    index: int
    size: int
    write: int
    other_write: int
    detail: int
    other_detail: int
    offset: int
    length: int
    count: int
    group: tuple[int, int, int]
    waiting: tuple[int, ...]
    others: tuple[int, ...]


@dataclass(frozen=True)
class ExecutorAnswer:
    """What the executor prints."""

    findings: list[RawFinding]
    stopped: int
    threads: int
    traffic: list[tuple[int, int, int, int, int]]
    buffers: list[tuple[int, int, int, int, int, int]]
    met: list[int]
    blocks: dict[str, int]


@dataclass(frozen=True)
class Finding:
    """An error in a kernel: one of `KINDS`, where ("file:line"), how often, and the whole sentence."""

    kind: str
    where: str
    count: int
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True)
class Traffic:
    """Loads and stores of one address space: how many, and bytes."""

    loads: int
    load_bytes: int
    stores: int
    store_bytes: int
    atomics: int


@dataclass(frozen=True)
class BufferTraffic(Traffic):
    """Loads and stores of one bound buffer."""

    read_once: int
    """bytes that were loaded, each counted once for a threadgroup, however often its threads load it"""


@dataclass(frozen=True)
class Report:
    """One dispatch. `buffers` are the bound buffers after the kernel."""

    kernel: str
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    """accesses that are right only because the lanes of a SIMD-group run in step"""
    completed: bool
    """whether every thread ran to its end"""
    buffers: tuple[np.ndarray[Any, Any], ...]
    threads: int
    traffic: dict[str, Traffic]
    """by address space: device, constant, threadgroup, thread"""
    buffer_traffic: tuple[BufferTraffic, ...]
    """by the number of the bound buffer; accesses outside of all buffers are only in `traffic`"""
    meetings: dict[str, int]
    """SIMD-group functions, matrix operations and barriers: once for each group that met"""
    operations: dict[str, int]
    """arithmetic over all threads, a vector counted by its components: float, integer, convert, select, special"""
    lines: dict[str, dict[str, int]] = field(repr=False, default_factory=dict)
    """the same by source line: "file:line" """

    @property
    def ok(self) -> bool:
        """Whether it ran to its end without findings."""
        return self.completed and not self.findings


def judge(
    kernel: str,
    outcome: ExecutorAnswer,
    profile: Profile,
    names: Mapping[tuple[bool, int], str],
    buffers: tuple[np.ndarray[Any, Any], ...],
) -> Report:
    """The executor's outcome, in terms of the source. `names` has the parameters by (is threadgroup, index)."""
    lines: dict[str, Counter[str]] = {}
    for block, times in outcome.blocks.items():
        for line, counts in profile.blocks[int(block)].items():
            lines.setdefault(line, Counter()).update({kind: n * times for kind, n in counts.items()})
    operations: Counter[str] = Counter()
    for counted in lines.values():
        operations.update(counted)
    traffic = {place: Traffic(*row) for place, row in zip(PLACES, outcome.traffic, strict=True)}
    meetings: Counter[str] = Counter()
    for kind, times in zip(MEETINGS, outcome.met, strict=True):
        meetings[kind] += times
    where = _places(profile)
    merged: dict[tuple[int, str, str], Finding] = {}
    for raw in outcome.findings:
        key = raw.kind, where(raw.site), where(raw.other_site)
        earlier = merged.get(key)
        merged[key] = Finding(
            KINDS[raw.kind],
            where(raw.site),
            raw.count + (earlier.count if earlier else 0),
            earlier.message if earlier else f"{kernel}: {_sentence(raw, where, names)}",
        )
    return Report(
        kernel=kernel,
        findings=tuple(found for found in merged.values() if found.kind != "lockstep"),
        notes=tuple(found for found in merged.values() if found.kind == "lockstep"),
        completed=not outcome.stopped,
        buffers=buffers,
        threads=outcome.threads,
        traffic=traffic,
        buffer_traffic=tuple(BufferTraffic(*row) for row in outcome.buffers[: len(buffers)]),
        meetings={kind: n for kind, n in meetings.items() if n},
        operations=dict(operations),
        lines={line: dict(counted) for line, counted in lines.items()},
    )


def _places(profile: Profile) -> Callable[[int], str]:
    def where(site: int) -> str:
        if not 0 <= site < len(profile.sites):
            return "?"
        return "{}:{}".format(*profile.sites[site])

    return where


def _sentence(raw: RawFinding, where: Callable[[int], str], names: Mapping[tuple[bool, int], str]) -> str:
    at, kind = where(raw.site), KINDS[raw.kind]
    thread = f"thread {raw.lane} of threadgroup {raw.group}"
    does = "writes" if raw.write else "reads"
    if kind == "out-of-bounds":
        name = names.get((raw.place == 2, raw.index))
        what = "threadgroup argument" if raw.place == 2 else "buffer"
        if raw.detail:
            return f"{at}: {thread} {does} {raw.size} bytes through a null pointer"
        if name is None and raw.place == 2:
            return f"{at}: {thread} {does} {raw.size} bytes across the end of a threadgroup variable"
        if name is None:
            return f"{at}: {thread} {does} {raw.size} bytes at an address that belongs to no buffer"
        where_ = f"{raw.offset} of {what} {raw.index} ({name}), which has {raw.length}"
        return f"{at}: {thread} {does} {raw.size} bytes at {where_}"
    memory = _memory(raw, names)
    if kind == "uninitialised-threadgroup-read":
        return f"{at}: {thread} reads {memory}, which no thread of the threadgroup has written"
    if kind in ("race", "lockstep"):
        did = "wrote" if raw.other_write else "read"
        return (
            f"{at}: {thread} {does} {memory}, which thread {raw.other_lane} {did} ({where(raw.other_site)})"
            " with no barrier between"
        )
    if kind == "divergence":
        if not raw.others:
            return f"{at}: a {MEETINGS[raw.detail]} with only {_list(raw.waiting)} of the SIMD-group"
        return (
            f"{at}: {_list(raw.waiting)} of threadgroup {raw.group} wait at a {MEETINGS[raw.detail]},"
            f" {_list(raw.others)} elsewhere, at a {MEETINGS[raw.other_detail]} ({where(raw.other_site)})"
        )
    if kind == "barrier-not-met":
        return (
            f"{at}: {_list(raw.waiting)} of threadgroup {raw.group} wait at a threadgroup barrier that"
            f" {_list(raw.others)} never reach: they have ended"
        )
    if kind == "division-by-zero":
        return f"{at}: {thread} divides an integer by zero"
    if kind == "time-limit":
        waiting = f"; {_list(raw.waiting)} wait" if raw.waiting else ""
        return f"{at}: {thread} ran past the time limit{waiting}"
    if raw.lane < 0:
        return f"a process of the executor was stopped by signal {raw.detail}"
    stack = " (its stack is full)" if raw.other_detail else ""
    what = _SIGNALS.get(raw.detail, f"signal {raw.detail}")
    return f"{at}: {thread} was stopped by {what}{stack}, at or after this line"


def _memory(raw: RawFinding, names: Mapping[tuple[bool, int], str]) -> str:
    name = names.get((True, raw.index), "")
    what = f"threadgroup argument {raw.index} ({name})" if raw.index < VARIABLES else f"the threadgroup variable {name}"
    return f"{raw.size} bytes at {raw.offset} of {what}"


def _list(lanes: tuple[int, ...]) -> str:
    """Threads as ranges: 0-15, 31."""
    parts: list[str] = []
    begin = 0
    for at, lane in enumerate(lanes):
        if at + 1 == len(lanes) or lanes[at + 1] != lane + 1:
            parts.append(f"{lanes[begin]}-{lane}" if lane > lanes[begin] else str(lane))
            begin = at + 1
    return f"thread{'s' if len(lanes) != 1 else ''} " + ", ".join(parts)
