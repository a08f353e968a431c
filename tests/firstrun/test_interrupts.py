"""A first run that is interrupted leaves nothing; one that is killed, nothing after the next one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .interrupts import PLACES, interrupt

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_while_a_job_is_loaded(tmp_path: Path, number: signal.Signals) -> None:
    assert interrupt(tmp_path.resolve(), PLACES["the first job is loaded"], number) == ""
