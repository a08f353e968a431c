from __future__ import annotations

from pathlib import Path

from toolchain.deploy import presence
from toolchain.deploy.prefix import Prefix
from toolchain.service.manager import Instance, ServiceState

from .process_manager import ProcessManager


def test_without_a_claim_the_copy_that_runs_is_the_one_that_serves(tmp_path: Path) -> None:
    stopped, running = (
        Instance(manager=ProcessManager(tmp_path, label), state=ServiceState(loaded=True, pid=pid))
        for label, pid in (("stopped", 0), ("running", 4711))
    )
    for places in ((stopped, running), (running, stopped)):
        assert presence.serving(places, Prefix(tmp_path)) is running
    assert presence.serving((stopped,), Prefix(tmp_path)) is stopped
    assert presence.serving((), Prefix(tmp_path)) is None
