"""Output of macOS's tools, in the formats of several versions, with numbers of our own.

The formats were seen in published output:

    vmmap, leaks     macOS 13.3.1 (gopls' source), 14.5 (a Kotlin example), 15.5 with a line more (a forum's log)
    footprint        macOS 14 (socketry/process-metrics #3), later with auxiliary data (scripts that read them)
    vm_stat          Intel (wazuh #22113), Apple silicon, 26.6 with a wider column (a benchmark's tests)
    memory_pressure  whole on Apple silicon (reports of a disk cleaner), -Q, 26 with another first line
    pmset            12 to 14 with lowpowermode, 15 and 26 with powermode
    ioreg            26 on an M3 Pro, before with spaces around the sign
"""

from __future__ import annotations

import ctypes

import pytest

from toolchain.host import footprint, macos
from toolchain.host.macos import Paging, Used

MIB, GIB = 1 << 20, 1 << 30

VMMAP = """Process:         llama-server [4711]
Path:            /Users/USER/*/llama-server
Load Address:    0x100a00000
Identifier:      llama-server
Version:         0
Code Type:       ARM64
Platform:        macOS
Parent Process:  ollama [4700]
{target}
Date/Time:       2026-01-02 03:04:05.678 +0100
Launch Time:     2026-01-02 03:00:00.123 +0100
OS Version:      macOS {version}
Report Version:  7
Analysis Tool:   /usr/bin/vmmap

Physical footprint:         {now}
Physical footprint (peak):  {peak}
Idle exit:                  untracked
----
"""


@pytest.mark.parametrize(
    ("version", "target", "now", "peak", "expected"),
    [
        ("13.3.1 (22E261)", "", "1.5G", "1.5G", Used(now=3 * GIB // 2, peak=3 * GIB // 2)),
        ("14.5 (23F79)", "", "213.5M", "8.25G", Used(now=427 * MIB // 2, peak=33 * GIB // 4)),
        ("15.5 (24F74)", "Target Type:     live task\n", "2192K", "2320K", Used(now=2192 << 10, peak=2320 << 10)),
    ],
)
def test_vmmap_states_now_and_the_peak(version: str, target: str, now: str, peak: str, expected: Used) -> None:
    assert macos.vmmap(VMMAP.format(version=version, target=target, now=now, peak=peak)) == expected


RULE = "=" * 70
FOOTPRINT_14 = f"""{RULE}
llama-server [4711]: 64-bit    Footprint: 42 MB (16384 bytes per page)
{RULE}

  Dirty      Clean  Reclaimable    Regions    Category
    ---        ---          ---        ---    ---
  16 MB        0 B          0 B          2    MALLOC_LARGE
"""
FOOTPRINT_15 = f"""{FOOTPRINT_14}
Auxiliary data:
    dirty: 41 MB
    phys_footprint: 42 MB
    phys_footprint_peak: 45 MB
"""
FOOTPRINT_BYTES = f"""{RULE}
llama-server [4711]: 64-bit    Footprint: 8700000000 B (16384 bytes per page)
{RULE}

Auxiliary data:
    phys_footprint: 8700000000 B
    phys_footprint_peak: 8900000000 B
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FOOTPRINT_14, Used(now=42 * MIB, peak=None)),
        (FOOTPRINT_15, Used(now=42 * MIB, peak=45 * MIB)),
        (FOOTPRINT_BYTES, Used(now=8_700_000_000, peak=8_900_000_000)),
        (FOOTPRINT_14 + FOOTPRINT_14, None),  # two processes
    ],
)
def test_footprint_states_one_process(text: str, expected: Used | None) -> None:
    assert macos.footprint(text) == expected


VM_STAT = """Mach Virtual Memory Statistics: (page size of {page} bytes)
Pages free:                             {pad}  12345.
Pages active:                           {pad} 485320.
"Translation faults":                   {pad}1477162.
Pageins:                                {pad}  80307.
Pageouts:                               {pad}     12.
Swapins:                                {pad}      0.
Swapouts:                               {pad}   2048.
"""


@pytest.mark.parametrize(("page", "pad"), [(4096, ""), (16384, ""), (16384, "      ")])
def test_vm_stat_counts_in_its_own_pages(page: int, pad: str) -> None:
    expected = Paging(paged_out=12 * page, swapped_out=2048 * page)
    assert macos.vm_stat(VM_STAT.format(page=page, pad=pad)) == expected


PRESSURE_WHOLE = """The system has 34359738368 (2097152 pages with a page size of 16384).

Stats: \nPages free: 10813 \nPages purgeable: 3936 \nPages purged: 2046355 \n
Swap I/O:
Swapins: 0 \nSwapouts: 0 \n
Compressor Stats:
Pages used by compressor: 680235 \n
File I/O:
Pageins: 41997609 \nPageouts: 1051098 \n
System-wide memory free percentage: 46%
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PRESSURE_WHOLE, 46),
        (
            "The system has 17179869184 (4194304 pages with a page size of 4096).\n"
            "System-wide memory free percentage: 7%\n",
            7,
        ),
        ("The system has 17179869184 bytes of physical memory.\nSystem-wide memory free percentage: 100%\n", 100),
        ("System-wide memory free percentage: 146%\n", None),
    ],
)
def test_memory_pressure_states_what_is_free(text: str, expected: int | None) -> None:
    assert macos.free_percentage(text) == expected


BATTERY = " -InternalBattery-0 (id=1234567)\t19%; discharging; 1:02 remaining present: true\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Now drawing from 'AC Power'\n" + BATTERY, False),
        ("Now drawing from 'Battery Power'\n" + BATTERY, True),
        ("Now drawing from 'UPS Power'\n", True),
        ("Now drawing from 'AC Power'\n", False),  # a Mac without a battery
        ("No batteries available.\n", None),
    ],
)
def test_pmset_states_the_power_source(text: str, expected: bool | None) -> None:
    assert macos.on_battery(text) is expected


PMSET = """System-wide power settings:
 SleepDisabled\t\t0
Currently in use:
 standby              1
 Sleep On Power Button 1
 sleep                1 (sleep prevented by powerd, caffeinate)
 tcpkeepalive         1
{mode} womp                 1
"""


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (" lowpowermode         0\n", False),
        (" lowpowermode         1\n", True),
        (" powermode            0\n", False),
        (" powermode            1\n", True),
        (" powermode            2\n", False),  # high power
        (" lowpowermode         1\n powermode            0\n", False),
        (" powermode            ?\n", None),
        ("", None),
    ],
)
def test_pmset_states_low_power_mode(mode: str, expected: bool | None) -> None:
    assert macos.low_power(PMSET.format(mode=mode)) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Note: No thermal warning level has been recorded\nNote: No performance warning level has been recorded\n"
            "Note: No CPU power status has been recorded\n",
            False,
        ),
        (
            "Note: No thermal warning level has been recorded\n2026-01-02 03:04:05 +0100 CPU Power notify\n"
            "\tCPU_Scheduler_Limit \t= 100\n\tCPU_Available_CPUs \t= 8\n\tCPU_Speed_Limit \t= 100\n",
            False,
        ),
        (" - CPU_Scheduler_Limit          = 100\n - CPU_Speed_Limit               = 68\n", True),
        ("Thermal Warning Level = 1\n", True),
        ("Note: No performance warning level has been recorded\n", None),
    ],
)
def test_pmset_states_a_limit_of_the_cpu(text: str, expected: bool | None) -> None:
    assert macos.throttled(text) is expected


def test_ioreg_states_the_busiest_gpu() -> None:
    line = (
        '    | "PerformanceStatistics" = {{"Tiler Utilization %"=27,"Device Utilization %"{}{},"SplitSceneCount"=0}}\n'
    )
    assert macos.gpu_share(line.format("=", 29)) == 0.29
    assert macos.gpu_share(line.format(" = ", 5) + line.format(" = ", 71)) == 0.71
    assert macos.gpu_share(line.format("=", 999)) is None


@pytest.mark.parametrize(
    "parse",
    [
        macos.vmmap,
        macos.footprint,
        macos.vm_stat,
        macos.free_percentage,
        macos.on_battery,
        macos.low_power,
        macos.throttled,
        macos.gpu_share,
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "command not found",
        "Physical footprint:         1,5G\nPhysical footprint (peak):  1.5T\n",
        "x [1]: 64-bit    Footprint: 42 pages (16384 bytes per page)\n",
        "Mach Virtual Memory Statistics: (page size of 1000 bytes)\nPageouts: 1.\nSwapouts: 1.\n",
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPageouts: 1,000.\nSwapouts: 1.\n",
        "System-wide memory free percentage: unknown\n",
        "Now drawing from nowhere\nCurrently in use:\n powermode 12\n",
        '"Device Utilization %"="high"',
    ],
)
def test_unknown_output_is_unknown(parse: object, text: str) -> None:
    assert parse(text) is None  # type: ignore[operator]


def test_the_structure_of_rusage_is_that_of_xnu() -> None:
    """Offsets in bytes, from bsd/sys/resource.h: 16 bytes, then 35 numbers of 8."""
    assert ctypes.sizeof(footprint.RusageV4) == 16 + 35 * 8
    assert footprint.RusageV4.wired.offset == 16 + 5 * 8
    assert footprint.RusageV4.phys_footprint.offset == 16 + 7 * 8
    assert footprint.RusageV4.lifetime_max_phys_footprint.offset == 16 + 28 * 8


def test_linux_counts_mapped_files_and_what_is_swapped_out() -> None:
    text = """55d0a0000000-7ffd00000000 ---p 00000000 00:00 0                          [rollup]
Rss:              300000 kB
Pss:              250000 kB
Anonymous:        100000 kB
Swap:              50000 kB
"""
    assert footprint.parse_rollup(text) == (150000 << 10, 200000 << 10)
    assert footprint.parse_rollup("Rss: many kB\n") is None
    assert footprint.parse_status("Name:\tllama-server\nVmHWM:\t  310000 kB\n") == 310000 << 10
