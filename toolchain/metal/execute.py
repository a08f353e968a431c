"""Executing what a tree's Metal host code makes of an operation: its dispatches, on its kernels, in the harness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .findings import Finding, Report
from .host import Dispatch, Host, Operation, RecordedOperation
from .libraries import Libraries
from .library import Library

Bytes = npt.NDArray[np.uint8]
_UNWRITTEN = 0xFF
"""what a result is filled with: as floats, NaN"""


@dataclass(frozen=True, kw_only=True)
class Executed:
    """The result's bytes, what the host code did, a report for each dispatch, and what the harness found in any."""

    result: Bytes
    recorded: RecordedOperation
    reports: tuple[Report, ...] = ()
    findings: tuple[Finding, ...] = ()


def execute(
    host: Host,
    libraries: Libraries,
    operation: Operation,
    operands: Sequence[Bytes | None],
    result: Bytes,
    seconds: float = 60.0,
) -> Executed:
    """Run one operation on `operands` (bytes each); `result` is what its memory holds before, or only its size counts.

    Of an operation that the host does not claim, nothing is run. Raises `KernelInvalid` for a dispatch that no device
    would take: an unknown kernel, arguments of another size, too many threads, too much threadgroup memory.
    """
    recorded = host.record([operation])[0]
    if not recorded.claimed:
        return Executed(result=result, recorded=recorded)
    extra = np.full(recorded.extra, _UNWRITTEN, np.uint8)
    memory: list[Bytes | None] = [np.concatenate([result, extra]), *operands]
    bounds = _bounds(recorded.dispatches)
    reports = tuple(_run(libraries.of(dispatch), dispatch, memory, bounds, seconds) for dispatch in recorded.dispatches)
    whole = memory[0]
    assert whole is not None
    return Executed(
        result=whole[: result.size],
        recorded=recorded,
        reports=reports,
        findings=tuple(finding for report in reports for finding in report.findings),
    )


def unwritten(size: int) -> Bytes:
    """Memory for a result: what a kernel leaves out will stand out."""
    return np.full(size, _UNWRITTEN, np.uint8)


def _bounds(dispatches: Sequence[Dispatch]) -> dict[int, list[int]]:
    """Where in each tensor's memory something new begins, so that a kernel is given no more than its own part."""
    starts: dict[int, set[int]] = {}
    for dispatch in dispatches:
        for tensor, offset in dispatch.buffers.values():
            starts.setdefault(tensor, set()).add(offset)
    return {tensor: sorted(offsets) for tensor, offsets in starts.items()}


def _run(
    library: Library, dispatch: Dispatch, memory: list[Bytes | None], bounds: dict[int, list[int]], seconds: float
) -> Report:
    slots: list[Bytes | bytes | None] = [None] * (1 + max(map(int, [*dispatch.bytes, *dispatch.buffers])))
    for key, text in dispatch.bytes.items():
        slots[int(key)] = bytes.fromhex(text)
    places = {}
    for key, (tensor, offset) in dispatch.buffers.items():
        whole = memory[tensor]
        if whole is None:
            continue
        end = next((start for start in bounds[tensor] if start > offset), whole.size)
        places[int(key)] = (tensor, offset, end)
        slots[int(key)] = whole[offset:end].copy()
    known = set(library.constants.values())
    report = library.run(
        dispatch.kernel,
        slots,
        grid=dispatch.groups,
        threads=dispatch.threads,
        function_constants={int(key): value for key, value in dispatch.constants.items() if int(key) in known},
        # a length without an argument for it does nothing on a device either
        threadgroup_bytes=[dispatch.memory] if dispatch.memory and library.takes_threadgroup(dispatch.kernel) else (),
        seconds=seconds,
    )
    for slot, (tensor, offset, end) in places.items():
        whole, before, after = memory[tensor], slots[slot], report.buffers[slot]
        assert whole is not None
        assert isinstance(before, np.ndarray)
        changed = before != after
        whole[offset:end][changed] = after[changed]
    return report
