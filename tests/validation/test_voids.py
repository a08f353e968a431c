"""What makes a measurement void, and what an operator accepts."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time

import psutil
import pytest

from tests.validation.calm import QUIET, Scripted
from toolchain.host.conditions import Conditions, Observer
from toolchain.validation import result
from toolchain.validation.voids import Watch, accepted, complaints, unknown


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"on_battery": True}, "battery: the machine was on battery"),
        ({"low_power": True}, "battery: Low Power Mode was on"),
        ({"thermal": "heavy"}, "thermal: the thermal pressure was heavy"),
        ({"foreign_cpu": 0.5}, "load: other programs had 50% of the CPU (at most 10%)"),
    ],
)
def test_each_disturbance_during_a_measurement_is_told(change: dict[str, object], why: str) -> None:
    disturbed = dataclasses.replace(QUIET, **change)  # type: ignore[arg-type]
    watch = Watch(Scripted(QUIET, disturbed))
    with watch:
        pass
    assert complaints(watch.seen, 0.1) == (why,)


def test_the_gpu_counts_before_the_measurement_alone() -> None:
    working = dataclasses.replace(QUIET, gpu=0.9)
    for looks, count in (((QUIET, working), 0), ((working, QUIET), 1)):
        watch = Watch(Scripted(*looks))
        with watch:
            pass
        assert len(complaints(watch.seen, 0.1)) == count


def test_a_thread_looks_meanwhile() -> None:
    looked: list[int] = []

    class Counting:
        def look(self) -> Conditions:
            looked.append(1)
            return QUIET

    with Watch(Counting(), every_s=0.001) as watch:
        while len(looked) < 5:
            pass
    assert watch.seen.looks >= 6


def test_what_is_unknown_is_no_void_and_is_told() -> None:
    watch = Watch(Scripted(Conditions()))
    with watch:
        pass
    assert complaints(watch.seen, 0.1) == ()
    assert unknown(watch.seen) == ("power source", "thermal pressure", "load of others")


def test_an_accepted_void_is_a_note() -> None:
    found = result.TestResult(test="speed", verdict="passed", summary="", voids=("load: others", "battery: on battery"))
    taken = accepted(found, {"load"})
    assert (taken.voids, taken.notes) == (
        ("battery: on battery",),
        ("void, accepted by the operator: load: others",),
    )
    assert accepted(found, ()) == found


def test_the_load_of_others_is_measured_and_ones_own_is_not() -> None:
    busy = "import time\nwhile time.process_time() < 0.4: pass\nprint(flush=True); input()"
    ours, theirs = Observer(), Observer()
    theirs._ours = ()  # so that everything is foreign to this one
    began = time.monotonic()
    for one in (theirs, ours):
        assert one.look().foreign_cpu is None
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        shares = [one.look().foreign_cpu for one in (ours, theirs)]
        cores = (time.monotonic() - began) * (psutil.cpu_count() or 1)
        child.communicate(b"\n")
    others, everything = shares
    assert others is not None
    assert everything is not None
    assert (everything - others) * cores > 0.2
