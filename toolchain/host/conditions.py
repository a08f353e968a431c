"""What disturbs a measurement of speed: the battery, Low Power Mode, heat, and what else uses the CPU and the GPU.

None means that it cannot be learned here; it is never taken for calm.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from ..core.process import ask
from ..core.records import record
from . import macos
from .footprint import family

_THERMAL = b"com.apple.system.thermalpressurelevel"
THERMAL_LEVELS = ("nominal", "moderate", "heavy", "trapping", "sleeping")
"""of the Darwin notification, by its state"""
_IDLE = ("idle", "iowait", "guest", "guest_nice")
"""fields of psutil's cpu_times that are not work; `guest` is in `user` as well"""


@record
class Conditions:
    """One look at the machine. Shares are from 0 to 1: of all cores since the look before, of the GPU now."""

    on_battery: bool | None = None
    low_power: bool | None = None
    thermal: str | None = None
    """one of `THERMAL_LEVELS`, or throttled where only pmset answers"""
    foreign_cpu: float | None = None
    """by programs other than ours; what a hypervisor gave to other machines counts as well"""
    gpu: float | None = None
    """by all programs, ours as well"""


class Observer:
    """Looks at this machine. This process and its descendants are ours, and so are `pids` with theirs."""

    def __init__(self, pids: Iterable[int] = ()) -> None:
        self._ours = (os.getpid(), *pids)
        self._busy, self._own, self._at = 0.0, dict[tuple[int, float], float](), 0.0

    def look(self) -> Conditions:
        """The conditions now. The first look has no CPU share."""
        share = self._foreign_cpu()
        if sys.platform == "darwin":
            settings = ask(("/usr/bin/pmset", "-g"))
            return Conditions(
                on_battery=macos.on_battery(ask(("/usr/bin/pmset", "-g", "batt"))),
                low_power=macos.low_power(settings),
                thermal=_thermal(),
                foreign_cpu=share,
                gpu=macos.gpu_share(ask(("/usr/sbin/ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator"))),
            )
        return Conditions(on_battery=_linux_battery(), foreign_cpu=share)

    def _foreign_cpu(self) -> float | None:
        """The share of all cores since the last call that others had."""
        now, times, own = time.monotonic(), psutil.cpu_times(), self._own_times()
        busy: float = sum(seconds for name, seconds in times._asdict().items() if name not in _IDLE)
        before, self._busy, self._own, self._at = (self._busy, self._own, self._at), busy, own, now
        if not before[2] or now - before[2] < 0.05:
            return None
        used = sum(seconds - before[1].get(key, 0.0) for key, seconds in own.items())
        spent = (now - before[2]) * (psutil.cpu_count() or 1)
        return min(1.0, max(0.0, busy - before[0] - used) / spent)

    def _own_times(self) -> dict[tuple[int, float], float]:
        """CPU seconds of each of our processes, by its id and start. One that has ended since is taken for foreign."""
        found = {}
        for pid in {one for ours in self._ours for one in family(ours)}:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                times = process.cpu_times()
                found[pid, process.create_time()] = times.user + times.system
        return found


def _thermal() -> str | None:
    """The thermal pressure: that which programs are notified of, which needs no privileges, else pmset's word."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("/usr/lib/libSystem.dylib")
        token, state = ctypes.c_int(), ctypes.c_uint64()
        if library.notify_register_check(_THERMAL, ctypes.byref(token)) == 0:
            answered = library.notify_get_state(token, ctypes.byref(state)) == 0
            library.notify_cancel(token)
            if answered and state.value < len(THERMAL_LEVELS):
                return THERMAL_LEVELS[state.value]
    throttled = macos.throttled(ask(("/usr/bin/pmset", "-g", "therm")))
    return None if throttled is None else "throttled" if throttled else THERMAL_LEVELS[0]


def _linux_battery(root: Path = Path("/sys/class/power_supply")) -> bool | None:
    """Whether a battery is discharging and no mains is online; False for a machine without any."""
    discharging, mains = False, False
    try:
        for supply in root.iterdir() if root.is_dir() else ():
            kind = (supply / "type").read_text().strip()
            if kind == "Mains":
                mains |= (supply / "online").read_text().strip() == "1"
            elif kind == "Battery":
                discharging |= (supply / "status").read_text().strip() == "Discharging"
    except OSError:
        return None
    return discharging and not mains
