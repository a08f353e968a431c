"""What macOS's own tools say of memory, power, heat and the GPU, read from their output.

Every function returns None for output that it does not recognize: an unknown format must never become a number.
Apple documents none of these formats. They were seen in published output of

    vmmap --summary     13.3, 14.5, 15.5       footprint      14, 15, 26 (with and without its auxiliary data)
    vm_stat             12, 14, 26             memory_pressure    14, 15 (-Q), 26 (-Q, other first line)
    pmset -g            14 (lowpowermode), 15 and 26 (powermode)
    pmset -g batt, pmset -g therm, ioreg -r -c IOAccelerator    14, 15, 26
"""

from __future__ import annotations

import re

from ..core.records import record

_UNITS = {"": 1, "B": 1, "K": 1 << 10, "KB": 1 << 10, "M": 1 << 20, "MB": 1 << 20, "G": 1 << 30, "GB": 1 << 30}
_SIZE = r"(\d{1,15}(?:\.\d{1,3})?) ?([KMG]?B?)"
_LOW_POWER = 1
"""of pmset's powermode: 0 is automatic, 2 is high power"""
_PAGE_SIZES = (4096, 16384)


@record
class Used:
    """A process's physical footprint in bytes, now and at most since its start (None: not stated)."""

    now: int
    peak: int | None


@record
class Paging:
    """Counters since the start of the machine, in bytes."""

    paged_out: int
    swapped_out: int


def vmmap(text: str) -> Used | None:
    """`vmmap --summary PID`: its lines `Physical footprint: 8.1G` and `Physical footprint (peak): 8.3G`."""
    now = _size(rf"^Physical footprint: +{_SIZE}$", text)
    return None if now is None else Used(now=now, peak=_size(rf"^Physical footprint \(peak\): +{_SIZE}$", text))


def footprint(text: str) -> Used | None:
    """`footprint PID`: `NAME [PID]: 64-bit    Footprint: 42 MB (16384 bytes per page)`, or with `-f bytes` a number of
    bytes, and the auxiliary data `phys_footprint_peak: 45 MB`. None for several processes."""
    now = _size(rf"^.{{1,300}} \[\d+\]: .{{0,40}}\bFootprint: {_SIZE} \(\d+ bytes per page\)$", text)
    return None if now is None else Used(now=now, peak=_size(rf"^ +phys_footprint_peak: {_SIZE}$", text))


def free_percentage(text: str) -> int | None:
    """`memory_pressure`, or `memory_pressure -Q`: the system-wide percentage of memory that is free."""
    found = _number(r"^System-wide memory free percentage: (\d{1,3})%$", text)
    return found if found is not None and found <= 100 else None


def vm_stat(text: str) -> Paging | None:
    """`vm_stat`: what was written to files (pageouts) and to the swap file, whatever the size of a page."""
    page = _number(r"^Mach Virtual Memory Statistics: \(page size of (\d+) bytes\)$", text)
    out, swapped = _number(r"^Pageouts: +(\d+)\.$", text), _number(r"^Swapouts: +(\d+)\.$", text)
    if page not in _PAGE_SIZES or out is None or swapped is None:
        return None
    return Paging(paged_out=out * page, swapped_out=swapped * page)


def on_battery(text: str) -> bool | None:
    """`pmset -g batt`: whether the power comes from the battery. A UPS counts as one."""
    match = re.search(r"^Now drawing from '(AC|Battery|UPS) Power'$", _clean(text), re.MULTILINE)
    return match[1] != "AC" if match else None


def low_power(text: str) -> bool | None:
    """`pmset -g`: whether Low Power Mode is in use. Newer versions call it powermode; a Mac that has no such mode names
    neither, which is no answer."""
    _, _, used = _clean(text).partition("Currently in use:")
    mode = _number(r"^ powermode +(\d)$", used)
    if mode is not None:
        return mode == _LOW_POWER
    older = _number(r"^ lowpowermode +([01])$", used)
    return None if older is None else bool(older)


def throttled(text: str) -> bool | None:
    """`pmset -g therm`: whether it states a limit of the CPU, or a warning level. It is silent about much of what the
    thermal pressure says, so `False` proves little."""
    limits = [int(one) for one in re.findall(r"CPU_(?:Speed|Scheduler)_Limit\s+= (\d{1,3})$", _clean(text), re.M)]
    if limits:
        return min(limits) < 100
    if stated := re.findall(r"^(?:thermal|performance) warning level\s+= (\d{1,3})$", _clean(text), re.M | re.I):
        return any(int(level) > 0 for level in stated)
    return False if "Note: No thermal warning level has been recorded" in text else None


def gpu_share(text: str) -> float | None:
    """`ioreg -r -d 1 -w 0 -c IOAccelerator`: the busiest GPU's utilization, from 0 to 1; a coarse figure."""
    found = [int(one) for one in re.findall(r'"Device Utilization %"\s?=\s?(\d{1,3})\b', text)]
    return max(found) / 100 if found and max(found) <= 100 else None


def _clean(text: str) -> str:
    """Without spaces at the ends of lines, which some versions print."""
    return "\n".join(line.rstrip() for line in text.splitlines())


def _number(pattern: str, text: str) -> int | None:
    """The number of the one line that matches; None for none or several."""
    found = re.findall(pattern, _clean(text), re.MULTILINE)
    return int(found[0]) if len(found) == 1 else None


def _size(pattern: str, text: str) -> int | None:
    found = re.findall(pattern, _clean(text), re.MULTILINE)
    if len(found) != 1 or found[0][1] not in _UNITS:
        return None
    return round(float(found[0][0]) * _UNITS[found[0][1]])
