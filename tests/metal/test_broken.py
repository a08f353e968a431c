"""Kernels with a fault: it is found, by name, at its line, and in bounded time."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from toolchain.metal import Library, Report

SOURCE = (Path(__file__).parent / "broken.metal").read_text().splitlines()


def line(kernel: str, comment: str) -> str:
    """The line of a kernel that bears a comment, as a finding names it."""
    start = next(i for i, text in enumerate(SOURCE) if re.search(rf"\b{kernel}\(", text))
    return f"broken.metal:{next(i for i in range(start, len(SOURCE)) if comment in SOURCE[i]) + 1}"


def dispatch(
    library: Library, kernel: str, threads: int = 64, lengths: Sequence[int] = (256,), **more: object
) -> Report:
    return library.run(kernel, [np.zeros(64, "f4")], grid=(1,), threads=(threads,), threadgroup_bytes=lengths, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kernel", "threads", "comment"),
    [
        ("missing_barrier", 64, "another simdgroup"),
        ("missing_simdgroup_barrier", 32, "its neighbour"),
        ("barrier_without_fence", 64, "orders nothing"),
        ("both_write", 64, "two values"),
    ],
)
def test_races(broken: Library, kernel: str, threads: int, comment: str) -> None:
    report = dispatch(broken, kernel, threads)
    races = [finding for finding in report.findings if finding.kind == "race"]
    assert any(line(kernel, comment) in finding.where for finding in races)
    assert all("(shared)" in finding.message for finding in races)
    assert not report.ok
    assert report.completed


def test_the_same_value_from_all_is_no_race(broken: Library) -> None:
    assert dispatch(broken, "same_value").ok


def test_a_write_behind_a_read_of_its_simdgroup_is_noted(broken: Library) -> None:
    report = dispatch(broken, "in_step", threads=32)
    assert report.ok
    assert [note.kind for note in report.notes] == ["lockstep"]
    assert line("in_step", "same simdgroup") in report.notes[0].where
    np.testing.assert_array_equal(report.buffers[0][:32], -np.arange(31, -1, -1))


def test_a_wrong_stride_leaves_its_buffer(broken: Library) -> None:
    report = broken.run("wrong_stride", [np.zeros(128, "f4"), np.zeros(64, "f4")], grid=(2,), threads=(32,))
    (finding,) = report.findings
    assert finding.kind == "out-of-bounds"
    assert finding.count == 64 - 43
    assert line("wrong_stride", "should be 2") in finding.where
    assert "reads 4 bytes at 516 of buffer 0 (src), which has 512" in finding.message
    sound = broken.run("wrong_stride", [np.zeros(190, "f4"), np.zeros(64, "f4")], grid=(2,), threads=(32,))
    assert sound.ok, "the last byte is within"


def test_a_write_below_its_buffer(broken: Library) -> None:
    report = broken.run("write_before", [np.zeros(64, "f4")], grid=(1,), threads=(64,))
    (finding,) = report.findings
    assert finding.kind == "out-of-bounds"
    assert "writes 4 bytes at -4 of buffer 0 (dst)" in finding.message


def test_an_unbound_buffer_that_is_touched(broken: Library) -> None:
    report = broken.run("write_before", [None], grid=(1,), threads=(1,))
    assert [finding.kind for finding in report.findings] == ["out-of-bounds"]


def test_threadgroup_memory_has_its_bounds(broken: Library) -> None:
    report = dispatch(broken, "shared_overrun", lengths=[256, 256])
    (finding,) = report.findings
    assert finding.kind == "out-of-bounds"
    assert "writes 4 bytes at 256 of threadgroup argument 0 (shared), which has 256" in finding.message


def test_threadgroup_memory_that_nobody_wrote(broken: Library) -> None:
    report = dispatch(broken, "never_written", lengths=())
    (finding,) = report.findings
    assert finding.kind == "uninitialised-threadgroup-read"
    assert "variable table" in finding.message
    assert finding.count == 32
    assert np.isnan(report.buffers[0][1]), "what is read has no likely value"
    assert report.buffers[0][2] == 2


def test_lanes_that_meet_at_different_places(broken: Library) -> None:
    report = dispatch(broken, "divergence", threads=32, lengths=())
    (finding,) = report.findings
    assert finding.kind == "divergence"
    assert "threads 0-11 of" in finding.message
    assert "threads 12-31 elsewhere" in finding.message
    assert line("divergence", "the others here") in finding.message


def test_a_matrix_needs_every_lane(broken: Library) -> None:
    report = dispatch(broken, "partial_matrix", threads=32, lengths=())
    assert {finding.kind for finding in report.findings} == {"divergence"}
    assert "a matrix load with only threads 0-29" in report.findings[0].message


def test_a_barrier_that_some_never_reach(broken: Library) -> None:
    report = dispatch(broken, "barrier_not_met", lengths=())
    (finding,) = report.findings
    assert finding.kind == "barrier-not-met"
    assert "threads 0-39 of threadgroup (0, 0, 0) wait" in finding.message
    assert "threads 40-63 never reach" in finding.message
    assert line("barrier_not_met", "never come") in finding.where
    assert not report.completed


def test_different_barriers(broken: Library) -> None:
    report = dispatch(broken, "two_barriers", lengths=())
    (finding,) = report.findings
    assert finding.kind == "divergence"
    assert "threads 0-31" in finding.message
    assert "threads 32-63 elsewhere" in finding.message


def test_a_kernel_without_end_is_stopped(broken: Library) -> None:
    started = time.monotonic()
    report = broken.run("endless", [np.zeros(1, "i4")], grid=(1,), threads=(32,), seconds=0.2)
    (finding,) = report.findings
    assert finding.kind == "time-limit"
    assert line("endless", "nobody sets it") in finding.where
    assert not report.completed
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("kernel", "kinds", "said"),
    [
        ("by_zero", ["division-by-zero"], "divides an integer by zero"),
        ("far_away", ["out-of-bounds", "crash"], "an access to unmapped memory"),
    ],
)
def test_a_crash_is_a_finding(broken: Library, kernel: str, kinds: list[str], said: str) -> None:
    report = broken.run(kernel, [np.zeros(64, "i4")], grid=(1,), threads=(32,))
    assert [finding.kind for finding in report.findings] == kinds
    assert said in report.findings[-1].message
    assert not report.completed
