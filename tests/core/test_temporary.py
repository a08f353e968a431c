"""Temporary folders: gone at the end, and after a kill with the next run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from toolchain.core import temporary

HOLD = """
import sys
from pathlib import Path
from toolchain.core import temporary
with temporary.folder("held", Path(sys.argv[1])) as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_run_left_goes_with_the_next_and_what_a_live_one_has_stays(tmp_path: Path) -> None:
    within = tmp_path / "tmp"
    argv = [sys.executable, "-c", HOLD, str(within)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as other:
        assert other.stdout
        held = Path(os.fsdecode(other.stdout.readline().strip()))
        with temporary.folder("mine", within) as mine:
            assert sorted(within.iterdir()) == sorted([held, mine])
        temporary.sweep(within)
        assert list(within.iterdir()) == [held]
        other.kill()
    assert (held / "file").exists()
    with temporary.folder("mine", within) as mine:
        assert list(within.iterdir()) == [mine]
    assert not within.exists()


def test_a_sweep_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "tmp/killed/deep").mkdir(parents=True)
    temporary.sweep(tmp_path / "tmp")
    assert not (tmp_path / "tmp").exists()
    temporary.sweep(tmp_path / "tmp")


@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
def test_only_this_user_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = os.umask(mask)
    try:
        with temporary.folder("x") as made:
            assert made.parent == temporary.home()
            assert stat.S_IMODE(made.stat().st_mode) == 0o700
            assert stat.S_IMODE(made.parent.stat().st_mode) == 0o755
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_that_name_that_others_can_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    temporary.home().mkdir()
    temporary.home().chmod(0o777)
    with temporary.folder("x") as made:
        assert made.parent == tmp_path
    temporary.home().rmdir()
    temporary.home().symlink_to(tmp_path)
    with temporary.folder("x") as made:
        assert made.parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == [temporary.home().name]
    with pytest.raises(OSError, match="turboquant-"), temporary.folder("x", temporary.home()):
        pass
