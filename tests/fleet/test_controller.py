"""A controller that is killed or interrupted, and the next one."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.deploy.site import running
from toolchain.core.console import Console
from toolchain.core.delivery_errors import InventoryInvalid, RolloutHalted
from toolchain.fleet import controller

from .fleets import NEW, OLD, ROOT, Fleet, outcomes
from .servers import needs_sshd

pytestmark = [needs_sshd, pytest.mark.slow]
CHILDREN = multiprocessing.get_context("forkserver")


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


def apply(fleet: Fleet) -> None:
    """What a controller does, in a process of its own."""
    fleet.apply()


def test_the_same_command_goes_on_where_a_controller_was_killed(macs: Fleet) -> None:
    first, second = macs.servers.values()
    for moment in (
        lambda: f"apply {NEW}" in first.verbs,  # in the middle of the first host
        lambda: f"apply {NEW}" in second.verbs,  # and of the second
    ):
        with running(CHILDREN.Process(target=apply, args=(macs.portable(),))):
            until(moment)
    report = macs.apply()
    assert (first.applied, second.applied) == ([NEW], [NEW])
    begun = [event.host for event in controller.find(macs.run()).events() if event.event == "applying"]
    assert begun.count("mac-1") <= 2  # once more at most, after the kill in its middle
    assert report.interruptions == 2
    assert outcomes(report) == {"mac-1": "changed", "mac-2": "changed"}
    assert all(one.before and one.before.release == OLD for one in report.waves[0].hosts)
    assert report.failure() is None


def test_ctrl_c_lets_tq_end_and_begins_no_other_host(macs: Fleet) -> None:
    first, second = macs.servers.values()
    task = subprocess.Popen(
        macs.command("fleet.apply", "--json"), cwd=ROOT, env=macs.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until(lambda: f"apply {NEW}" in first.verbs)
    task.send_signal(signal.SIGINT)
    stdout, stderr = task.communicate(timeout=60)
    assert task.returncode == 130, stderr
    assert '"exit_code": 130' in stdout
    assert "Traceback" not in stderr
    assert (first.active, second.verbs) == (NEW, [])
    events = [event.event for event in controller.find(macs.run()).events()]
    assert events[-1] == "interrupted"
    with pytest.raises(InventoryInvalid, match="is unfinished"):
        macs.apply(OLD)
    assert macs.apply().failure() is None
    assert first.applied == [NEW]


def test_a_halt_is_the_tasks_error_after_its_report(macs: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    macs.servers["mac-1"].does(error="30 tampered")
    report = macs.apply()
    with pytest.raises(RolloutHalted, match="the rollout was halted in wave 1"):
        replace(macs.run(), console=Console(json=True)).finish(report)
    assert json.loads(capsys.readouterr().out)["halted_because"] == "canary mac-1 failed: it is tampered"
