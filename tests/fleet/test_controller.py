"""A controller that is killed or interrupted, and the next one."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain.fleet import controller
from toolchain.fleet.report import of

from .fleets import NEW, OLD, Fleet, outcomes
from .servers import needs_sshd

pytestmark = [needs_sshd, pytest.mark.slow]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def macs(fleet: Fleet) -> Fleet:
    """Two slow hosts that run OLD, while the channel names NEW."""
    for name in ("mac-1", "mac-2"):
        fleet.host(name).does(slow=1)
    fleet.names(NEW)
    return fleet


def started(fleet: Fleet) -> subprocess.Popen[str]:
    return subprocess.Popen(
        fleet.command("fleet.apply", "--json"), cwd=Path(__file__).parents[2], env=fleet.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_the_same_command_goes_on_where_a_controller_was_killed(macs: Fleet) -> None:
    first, second = macs.servers.values()
    for moment in (
        lambda: f"apply {NEW}" in first.verbs,  # in the middle of the first host
        lambda: f"apply {NEW}" in second.verbs,  # and of the second
    ):
        running = started(macs)
        until(moment)
        running.kill()
        running.communicate()
    done = macs.task("fleet.apply")
    assert done.returncode == 0, done.stderr
    assert "goes on" in done.stderr
    assert (first.applied, second.applied) == ([NEW], [NEW])
    assert first.verbs.count(f"apply {NEW}") <= 2  # once more at most, after the kill in its middle
    report = of(controller.find(macs.run()))
    assert report.interruptions == 2
    assert outcomes(report) == {"mac-1": "changed", "mac-2": "changed"}
    assert all(one.before and one.before.release == OLD for one in report.waves[0].hosts)


def test_ctrl_c_lets_tq_end_and_begins_no_other_host(macs: Fleet) -> None:
    first, second = macs.servers.values()
    running = started(macs)
    until(lambda: f"apply {NEW}" in first.verbs)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    assert '"exit_code": 130' in stdout
    assert (first.active, second.verbs) == (NEW, [])
    events = [event.event for event in controller.find(macs.run()).events()]
    assert events[-1] == "interrupted"
    assert "Traceback" not in stderr
    other = macs.task("fleet.apply", "--release", OLD)
    assert other.returncode == 79
    assert "is unfinished" in other.stderr
    done = macs.task("fleet.apply")
    assert done.returncode == 0, done.stderr
    assert first.applied == [NEW]


def test_exit_codes(macs: Fleet) -> None:
    macs.servers["mac-1"].does(error="30 tampered")
    halted = macs.task("fleet.apply")
    assert (halted.returncode, "halted in wave 1: canary mac-1 failed: it is tampered" in halted.stderr) == (78, True)
    assert macs.task("fleet.status", "--json").returncode == 47
    assert macs.task("fleet.plan").returncode == 78
    assert macs.task("fleet.report", "--json").returncode == 0
