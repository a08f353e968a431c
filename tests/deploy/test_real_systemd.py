"""The tests of systemd, inside of a machine with a real one. Skipped where that cannot be made, as in a container."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from . import systemd_machine

_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 300


@pytest.mark.slow
def test_with_a_real_systemd(tmp_path: Path) -> None:
    if missing := systemd_machine.lacks():
        pytest.skip(f"no systemd of our own: {missing}")
    settings = [f"PYTHONPATH={_ROOT}", "TURBOQUANT_REAL_SYSTEMD=yes", "PYTHONDONTWRITEBYTECODE=1"]
    options = ["-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests"), "--rootdir", str(_ROOT)]
    tests = [sys.executable, "-m", "pytest", *options, str(_ROOT / "tests/deploy/test_systemd.py")]
    with systemd_machine.machine(tmp_path) as inside:
        done = subprocess.run(
            [*inside, "env", "-C", str(_ROOT), *settings, *tests],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
