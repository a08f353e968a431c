"""How much memory a program and its children take, now and at most.

    Linux   anonymous memory and swap of each process, and the pages of mapped files that it has in memory, from
            /proc/PID/smaps_rollup. Weights are mapped, so they are the second part; a file that two servers map is
            counted for each of them. The highest figure of a process is VmHWM of /proc/PID/status.
    macOS   the physical footprint, as in Activity Monitor, from proc_pid_rusage; else from footprint(1) or vmmap(1).
            Weights that are mapped for the CPU alone are not in it, those that Metal has wired are.

Only processes of the same user can be examined; for others nothing is known.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

from ..core.errors import ToolchainError
from ..core.process import ask
from ..core.records import record
from . import macos

_KIB = 1024
_RUSAGE_INFO_V4 = 4


@record
class Footprint:
    """Memory in bytes. `file` is the part that belongs to mapped files, `peak` the highest sum that is known."""

    bytes: int
    file: int
    peak: int
    source: str
    """as in smaps_rollup or proc_pid_rusage"""


class RusageV4(ctypes.Structure):
    """rusage_info_v4 of xnu's bsd/sys/resource.h: 16 bytes and 35 numbers."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        *((name, ctypes.c_uint64) for name in ("user", "system", "idle_wakeups", "interrupt_wakeups", "pageins")),
        *((name, ctypes.c_uint64) for name in ("wired", "resident", "phys_footprint", "started", "exited")),
        ("of_children", ctypes.c_uint64 * 6),
        ("disk", ctypes.c_uint64 * 2),
        ("cpu_by_qos", ctypes.c_uint64 * 7),
        ("billed", ctypes.c_uint64 * 2),
        ("logical_writes", ctypes.c_uint64),
        ("lifetime_max_phys_footprint", ctypes.c_uint64),
        ("instructions", ctypes.c_uint64),
        ("cycles", ctypes.c_uint64),
        ("energy", ctypes.c_uint64 * 2),
        ("interval_max_phys_footprint", ctypes.c_uint64),
        ("runnable", ctypes.c_uint64),
    )


def of(pid: int) -> Footprint | None:
    """The memory of a process and all its descendants; None when it has ended, or none of them can be examined."""
    return total(found for one in family(pid) if (found := _single(one)))


def family(pid: int) -> tuple[int, ...]:
    """A process and all its descendants; empty when it has ended."""
    try:
        process = psutil.Process(pid)
        return pid, *(child.pid for child in process.children(recursive=True))
    except psutil.Error:
        return ()


def total(parts: Iterable[Footprint]) -> Footprint | None:
    """The sum; of peaks as well, which is an upper bound, since they need not coincide."""
    found = tuple(parts)
    if not found:
        return None
    return Footprint(
        bytes=sum(one.bytes for one in found),
        file=sum(one.file for one in found),
        peak=sum(one.peak for one in found),
        source=found[0].source,
    )


def parse_rollup(text: str) -> tuple[int, int] | None:
    """/proc/PID/smaps_rollup: bytes of anonymous memory with what is swapped out, and of mapped files."""
    sizes = _kib(text)
    if not {"Rss", "Anonymous"} <= sizes.keys():
        return None
    anonymous = sizes["Anonymous"]
    return anonymous + sizes.get("Swap", 0), max(0, sizes["Rss"] - anonymous)


def parse_status(text: str) -> int | None:
    """/proc/PID/status: the most bytes that were ever resident."""
    return _kib(text).get("VmHWM")


def _single(pid: int) -> Footprint | None:
    return _mac(pid) if sys.platform == "darwin" else _linux(pid)


def _linux(pid: int) -> Footprint | None:
    with contextlib.suppress(OSError):
        folder = Path("/proc") / str(pid)
        parts = parse_rollup((folder / "smaps_rollup").read_text())
        if parts is not None:
            held = sum(parts)
            peak = parse_status((folder / "status").read_text()) or 0
            return Footprint(bytes=held, file=parts[1], peak=max(held, peak), source="smaps_rollup")
    return None


def _mac(pid: int) -> Footprint | None:
    usage = RusageV4()
    with contextlib.suppress(OSError, AttributeError):
        if not ctypes.CDLL("/usr/lib/libSystem.dylib").proc_pid_rusage(pid, _RUSAGE_INFO_V4, ctypes.byref(usage)):
            return Footprint(
                bytes=usage.phys_footprint,
                file=0,
                peak=max(usage.phys_footprint, usage.lifetime_max_phys_footprint),
                source="proc_pid_rusage",
            )
    for name, argv, parse in (
        ("footprint", ("/usr/bin/footprint", str(pid)), macos.footprint),
        ("vmmap", ("/usr/bin/vmmap", "--summary", str(pid)), macos.vmmap),
    ):
        with contextlib.suppress(ToolchainError):
            if found := parse(ask(argv)):
                return Footprint(bytes=found.now, file=0, peak=max(found.now, found.peak or 0), source=name)
    return None


def _kib(text: str) -> dict[str, int]:
    """Lines such as `Rss:   1234 kB`, in bytes."""
    words = (line.split() for line in text.splitlines())
    return {
        one[0].removesuffix(":"): int(one[1]) * _KIB
        for one in words
        if len(one) == 3 and one[2] == "kB" and one[1].isdigit()
    }
