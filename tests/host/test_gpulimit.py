"""How much of a Mac's memory its GPU may use: the figures of public logs, and Metal's own word."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kernels.conftest import compiler
from toolchain.host import gpulimit
from toolchain.host.gpulimit import GpuLimit

GIB = 1 << 30
LOGGED = [
    (16, 11453.25), (16, 12713.12), (24, 17179.87), (24, 19069.67), (32, 22906.50), (32, 26800.60), (36, 28991.03),
    (36, 30150.67), (48, 38654.71), (48, 40200.90), (64, 51539.61), (64, 55662.79), (128, 115448.73), (512, 498216.21),
]  # fmt: skip
"""GiB, and llama.cpp's recommendedMaxWorkingSetSize in units of 10^6 bytes"""


@pytest.mark.parametrize(("ram", "logged"), LOGGED)
def test_the_range_holds_every_published_figure(ram: int, logged: float) -> None:
    found = gpulimit.published(ram * GIB)
    size = logged * 1e6
    assert found.low - 1e5 <= size <= found.high + 1e5  # rounded, and to whole pages
    assert min(abs(size - found.low), abs(size - found.high)) < 0.001 * size  # and is one of its ends


def test_what_a_machine_says_goes_first() -> None:
    ram = 128 * GIB
    assert gpulimit.of_machine(ram, 0, 0) == gpulimit.published(ram)
    measured = gpulimit.of_machine(ram, 0, 115448725504)
    assert measured == GpuLimit(low=115448725504, high=115448725504, source="Metal")
    by_hand = gpulimit.of_machine(32 * GIB, 28000, 0)
    assert by_hand == GpuLimit(low=28000 << 20, high=28000 << 20, source="iogpu.wired_limit_mb=28000", by_hand=True)
    assert gpulimit.of_machine(8 * GIB, 100_000, 0).high == 8 * GIB
    both = gpulimit.of_machine(32 * GIB, 28000, 28000 << 20)
    assert (both.low, both.by_hand) == (28000 << 20, True)


METAL = """
#include <stddef.h>
#include <string.h>
static int device;
void * MTLCreateSystemDefaultDevice(void) { return DEVICE; }
void * sel_registerName(const char * name) { return (void *) name; }
unsigned long long objc_msgSend(void * to, void * selector) {
    return to == &device && !strcmp(selector, "recommendedMaxWorkingSetSize") ? 115448725504ull : 7;
}
"""


@pytest.mark.parametrize(("device", "limit"), [("&device", 115448725504), ("NULL", 0)])
def test_metal_is_asked_as_its_headers_say(tmp_path: Path, device: str, limit: int) -> None:
    """The functions of Metal and of the Objective-C runtime, with their C types, in a library of their own."""
    (tmp_path / "metal.c").write_text(METAL)
    library = tmp_path / "libmetal.so"
    words = ["-shared", "-fPIC", f"-DDEVICE={device}", str(tmp_path / "metal.c"), "-o", str(library)]
    subprocess.run([*compiler(), *words], check=True, capture_output=True)
    assert gpulimit.measure([str(library)] * 3) == limit


def test_a_library_that_is_not_there_is_no_limit(tmp_path: Path) -> None:
    assert gpulimit.measure([str(tmp_path / "none")] * 3) == 0
