"""A lock between processes: who holds it is named, and it ends with its holder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain.core import locks
from toolchain.core.errors import LockHeld

HOLD = """
import sys
from pathlib import Path
from toolchain.core import locks
with locks.held(Path(sys.argv[1]), "", hint=""):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_holder_is_named_and_takes_its_lock_along(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    argv = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(LockHeld, match=rf"the shelf is in use \(pid {other.pid}\)\n  try: wait"),
            locks.held(path, "the shelf is in use", hint="wait"),
        ):
            pass
        other.kill()
    assert locks.holder(path) == other.pid  # it could not take that back
    with locks.held(path, "", hint=""):
        assert locks.holder(path) == os.getpid()
    assert locks.holder(path) == 0
    assert list(path.parent.iterdir()) == [path]


def test_waiting_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.held(path, "", hint=""), pytest.raises(LockHeld), locks.held(path, "busy", hint="", timeout_s=0.2):
        pass
    with locks.held(path, "", hint="", timeout_s=0.2):
        pass


def test_a_failure_inside_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(ZeroDivisionError), locks.held(path, "", hint=""):
        raise ZeroDivisionError
    with locks.held(path, "", hint=""):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), locks.held(tmp_path / "file" / "lock", "", hint=""):
        pass
