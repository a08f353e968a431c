"""Whether the machine runs out of memory: looked at while something allocates, to stop it before the machine suffers.

    Linux   memory available without swapping, stalls for want of memory (/proc/pressure/memory), pages swapped out
    macOS   kern.memorystatus_vm_pressure_level, the free percentage of memory_pressure, pages written by vm_stat

What cannot be learned does not count as pressure; `known` says whether anything can.
"""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import psutil

from ..core.process import ask
from . import macos

_MIB = 1 << 20
_LEAST_SHARE, _LEAST_BYTES = 0.05, 512 * _MIB
"""of the memory that must stay available: the share, but no more than twice the bytes on a large machine"""
_STALLED = 10.0
"""percent of the last ten seconds in which some program waited for memory"""
_WRITTEN = 64 * _MIB
"""bytes written to swap since the beginning"""
_WARNING = 2
"""of the kernel's levels 1 (normal), 2 (warning) and 4 (critical)"""
_LEAST_FREE = 10
"""percent, as memory_pressure says"""


class MemoryPressure:
    """Looks at this machine; what was swapped out before does not count."""

    def __init__(self) -> None:
        self._before = self._written()

    @property
    def known(self) -> bool:
        """Whether this machine says anything of it."""
        return self._available() is not None or self._level() is not None

    def reason(self) -> str:
        """Why to stop now; empty while there is no pressure."""
        available, total = self._available(), psutil.virtual_memory().total
        least = min(2 * _LEAST_BYTES, max(_LEAST_BYTES, int(_LEAST_SHARE * total)))
        if available is not None and available < least:
            return f"{available / _MIB:.0f} MiB are available, {least / _MIB:.0f} must stay so"
        level = self._level()
        if level is not None and level >= _WARNING:
            return f"the kernel's memory pressure level is {level}"
        free = macos.free_percentage(ask(("/usr/bin/memory_pressure", "-Q"))) if sys.platform == "darwin" else None
        if free is not None and free < _LEAST_FREE:
            return f"{free}% of the memory are free"
        written = self._written()
        if written is not None and self._before is not None and written - self._before > _WRITTEN:
            return f"{(written - self._before) / _MIB:.0f} MiB were written to swap"
        stalled = stalls(_read("/proc/pressure/memory"))
        if stalled is not None and stalled > _STALLED:
            return f"programs waited for memory {stalled:.0f}% of the time"
        return ""

    @staticmethod
    def _available() -> int | None:
        """Bytes that programs can have without swapping; not of use on macOS, which compresses first."""
        return None if sys.platform == "darwin" else int(psutil.virtual_memory().available)

    @staticmethod
    def _level() -> int | None:
        if sys.platform != "darwin":
            return None
        text = ask(("/usr/sbin/sysctl", "-n", "kern.memorystatus_vm_pressure_level")).strip()
        return int(text) if text.isdigit() else None

    @staticmethod
    def _written() -> int | None:
        if sys.platform == "darwin":
            found = macos.vm_stat(ask(("/usr/bin/vm_stat",)))
            return found.swapped_out if found else None
        return int(psutil.swap_memory().sout)


def stalls(text: str) -> float | None:
    """/proc/pressure/memory: the percentage of the last ten seconds in which some task waited for memory."""
    match = re.search(r"^some avg10=(\d{1,3}\.\d{2}) ", text, re.MULTILINE)
    return float(match[1]) if match else None


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text()
    return ""
