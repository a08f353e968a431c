"""What makes a measurement void, and what an operator accepts."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time

import psutil
import pytest

from tests.validation.calm import QUIET, Scripted
from tests.validation.conftest import MakePlan, MakeTrial
from toolchain.core.errors import ConfigError
from toolchain.core.run import Run
from toolchain.host.conditions import Conditions, Observer
from toolchain.validation import result, validation
from toolchain.validation.voids import Watch, accepted, complaints, observer, summed_up, unknown


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


def test_complaints_of_one_sort_are_summed_up() -> None:
    load = "load: other programs had {}% of the CPU (at most 10%)"
    assert summed_up([load.format(99), "battery: the machine was on battery", load.format(100)]) == (
        "load: other programs had 100% of the CPU (at most 10%), 2 times",
        "battery: the machine was on battery",
    )
    assert summed_up([]) == ()


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


def test_a_running_server_that_the_plan_names_is_not_foreign(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    endpoint = make_trial(make_plan()).at("baseline", 512)
    url = endpoint.server.url  # type: ignore[attr-defined]
    given = make_plan(baseline_url=url, candidate_url="http://192.0.2.1:8080")
    assert observer(given)._ours == (os.getpid(), endpoint.pid)


def test_an_unknown_kind_of_void_is_refused(run: Run, make_plan: MakePlan) -> None:
    with pytest.raises(ConfigError, match="--accept-void 'weather' is unknown"):
        validation.validate(run, make_plan(tests=["checklist"]), accept_void=["weather"])


def test_the_report_says_on_which_machine_it_ran(run: Run, make_plan: MakePlan) -> None:
    plan = make_plan(tests=["checklist"])
    report = validation.validate(run, plan)
    assert "GiB of memory" in report.machine
