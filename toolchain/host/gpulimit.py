"""How much of a Mac's memory Metal lets the GPU use: as Metal says, as it was set, or a range of published figures.

llama.cpp logs it as recommendedMaxWorkingSetSize, in units of 10^6 bytes. Macs of one size differ by their macOS:

    GiB     16        24        32        36        48        64        128        512
    older   11453.25  17179.87  22906.50  28991.03  38654.71  51539.61  103079.22             2/3; 3/4 above 32 GiB
    newer   12713.12  19069.67  26800.60  30150.67  40200.90  55662.79  115448.73  498216.21
            74%       74%       78%       78%       78%       81%       84%        91%

Both rows are of public logs of llama.cpp, of Macs from M1 to M5; the newer ones are of macOS 26.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import ToolchainError
from ..core.process import capture
from ..core.records import record

_GIB, _MIB = 1 << 30, 1 << 20
_TWO_THIRDS_UP_TO = 32
_NEWER = ((24, 0.74), (48, 0.78), (96, 0.81), (128, 0.84), (1 << 20, 0.90625))
"""share up to this many GiB"""
_PROGRAM = Path(__file__).with_name("working_set.py")
_SECONDS = 20.0
SET = "iogpu.wired_limit_mb"


@record
class GpuLimit:
    """Bytes that Metal lets the GPU use: `low` for sure, `high` at most. 0 without Metal."""

    low: int
    high: int
    source: str
    """what says so; empty without Metal"""
    by_hand: bool = False
    """whether iogpu.wired_limit_mb is set, which a reboot undoes"""


NONE = GpuLimit(low=0, high=0, source="")


def published(ram: int) -> GpuLimit:
    """The range for a Mac with `ram` bytes, whose macOS is unknown."""
    low = ram * 2 // 3 if ram <= _TWO_THIRDS_UP_TO * _GIB else ram * 3 // 4
    share = next(share for most, share in _NEWER if ram <= most * _GIB or most == _NEWER[-1][0])
    return GpuLimit(low=low, high=max(low, int(ram * share)), source="published figures of older and newer macOS")


def of_machine(ram: int, wired_limit_mb: int, measured: int) -> GpuLimit:
    """The limit of this Mac, with what sysctl and `measure` say; 0 for what neither says."""
    by_hand = wired_limit_mb > 0
    if measured:
        source = f"Metal, with {SET}={wired_limit_mb}" if by_hand else "Metal"
        return GpuLimit(low=measured, high=measured, source=source, by_hand=by_hand)
    if by_hand:
        size = min(ram, wired_limit_mb * _MIB)
        return GpuLimit(low=size, high=size, source=f"{SET}={wired_limit_mb}", by_hand=True)
    return published(ram)


def measure(libraries: Sequence[str] = ()) -> int:
    """What Metal says on this Mac; 0 where this process gets no GPU, as in a daemon. `libraries` are for tests."""
    try:
        said = capture([sys.executable, "-I", _PROGRAM, *libraries], timeout=_SECONDS).stdout.strip()
    except ToolchainError:
        return 0
    return int(said) if said.isdigit() else 0
