"""A host that is switched off, in a network namespace of its own. `python -m tests.fleet.rollouts` has all kinds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .fleets import ROOT
from .namespaces import missing
from .servers import needs_sshd


@needs_sshd
@pytest.mark.slow
@pytest.mark.sampled(0)
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_host_that_drops_packets_is_unreachable_and_updated_once_it_is_back(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fleet.silence", tmp_path / "fleet"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "{'mac-1': 'unreachable', 'mac-2': 'changed'} None 10.77.1.2 port 22: no answer",
        "{'mac-1': 'changed', 'mac-2': 'unchanged'}",
    ]
