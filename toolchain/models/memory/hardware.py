"""The memory of a machine, and what its GPU may use of it."""

from __future__ import annotations

from collections.abc import Iterable

from ...core.records import record
from ...host import gpulimit
from ...host.gpulimit import GpuLimit

GIB = 1 << 30
SYSTEM_BYTES = 5 * GIB
"""27 GB on a machine of 32 GB, 31 GB on one of 36 GB"""
_MIB = 1 << 20


@record
class Hardware:
    """The memory of a machine, in bytes. `gpu` is the part of RAM that Metal surely lets a GPU use; 0 without Metal."""

    ram: int
    gpu: int = 0
    gpu_most: int = 0
    """the part that Metal may let it use: more than `gpu` where only published figures tell"""
    gpu_source: str = ""
    """what tells both"""
    gpu_by_hand: bool = False
    """whether iogpu.wired_limit_mb tells both"""

    @property
    def budget(self) -> int:
        """RAM without the system's share."""
        return max(0, self.ram - SYSTEM_BYTES)

    @property
    def metal(self) -> tuple[int, int]:
        """What Metal surely allows, and what it may allow; the budget without Metal."""
        low = self.gpu or self.budget
        return low, max(low, self.gpu_most)


def with_limit(ram: int, limit: GpuLimit) -> Hardware:
    """A machine with this limit of its GPU."""
    return Hardware(ram=ram, gpu=limit.low, gpu_most=limit.high, gpu_source=limit.source, gpu_by_hand=limit.by_hand)


def a_mac(ram: int) -> Hardware:
    """A Mac with `ram` bytes, whatever its macOS."""
    return with_limit(ram, gpulimit.published(ram))


def metal_notes(machine: Hardware, totals: Iterable[int]) -> list[str]:
    """What to do for plans that need this much (bytes) and fit the budget, where Metal may not allow them."""
    low, most = machine.metal
    over = [total for total in totals if total > low]
    notes = []
    if any(total <= most for total in over):
        notes.append(
            f"~ fits where Metal allows up to {most / GIB:.1f} GiB, as newer macOS does; older ones allow "
            f"{low / GIB:.1f} GiB: ./inv memory on that Mac asks Metal itself"
        )
    if needed := max((total for total in over if total > most), default=0):
        allowed = f"{low / GIB:.1f}" if low == most else f"{low / GIB:.1f} to {most / GIB:.1f}"
        notes.append(f"* fits, but Metal allows {allowed} GiB ({machine.gpu_source}): {_advice(machine, needed)}")
    return notes


def _advice(machine: Hardware, needed: int) -> str:
    stock = gpulimit.published(machine.ram)
    if machine.gpu_by_hand and needed <= stock.high:  # it was lowered, or macOS itself allows more by now
        own = f"{stock.low / GIB:.1f} to {stock.high / GIB:.1f} GiB"
        return f"sudo sysctl {gpulimit.SET}=0 gives macOS's own limit back, which is {own}"
    return f"sudo sysctl {gpulimit.SET}={-(-needed // _MIB)} raises it, until the next reboot"
