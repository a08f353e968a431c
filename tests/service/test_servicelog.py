"""The service's log across rotations, which the shim's own commands make."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from toolchain.core.config import DeployConfig
from toolchain.deploy import shim
from toolchain.service import servicelog
from toolchain.service.servicelog import LINE_BYTES, Follower

ONE_MB = DeployConfig(log_mb=1, log_files=2)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "it's a log"


def fill(log: Path, name: str, size: int = 1_000_001) -> None:
    """Append lines `name 0`, `name 1` ... of `size` bytes together, at least."""
    with log.open("a") as file:
        while file.tell() < size:
            file.writelines(f"{name} {number} {'x' * 90}\n" for number in range(1000))
        file.write(f"end of {name}\n")


def test_a_rotation_by_size(log: Path) -> None:
    shim.rotate(log, ONE_MB)  # there is none yet
    log.write_text("small\n")
    log.chmod(0o600)
    shim.rotate(log, ONE_MB)
    assert log.read_text() == "small\n"
    log.unlink()
    whole = {}
    with log.open("ab") as writer:  # as launchd has it open
        for name in "abc":
            fill(log, name)
            whole[name] = log.read_bytes()
            shim.rotate(log, ONE_MB)
            assert log.stat().st_size == 0
            writer.write(name.encode())
            writer.flush()
            assert log.read_bytes() == name.encode()  # no hole before it
            log.write_bytes(b"")
    first, second = servicelog.rotated(log)
    assert (first.read_bytes(), second.read_bytes()) == (whole["c"], whole["b"])
    assert sorted(path.name for path in log.parent.iterdir()) == [log.name, f"{log.name}.1", f"{log.name}.2"]


def test_two_rotations_do_not_meet(log: Path) -> None:
    fill(log, "a")
    log.with_name(f"{log.name}.rotating").mkdir()
    shim.rotate(log, ONE_MB)
    assert not servicelog.rotated(log)


def test_a_killed_rotation_stops_no_further_one(log: Path) -> None:
    fill(log, "a")
    marker = log.with_name(f"{log.name}.rotating")
    marker.mkdir()
    os.utime(marker, (time.time() - 400, time.time() - 400))
    shim.rotate(log, ONE_MB)
    assert len(servicelog.rotated(log)) == 1
    assert not marker.exists()


def test_the_last_lines_across_files(log: Path) -> None:
    assert servicelog.tail(log, 3) == ()
    for name in "ab":
        fill(log, name)
        shim.rotate(log, ONE_MB)
    assert servicelog.tail(log, 1) == ("end of b",)
    log.write_text("one\n\ntwo\r\nthree")
    assert servicelog.tail(log, 5) == ("end of b", "one", "", "two", "three")
    assert servicelog.tail(log, 2) == ("two", "three")
    assert (
        len(servicelog.tail(log, 10**6)) == sum(path.read_bytes().count(b"\n") for path in servicelog.rotated(log)) + 4
    )
    assert servicelog.tail(log, 0) == ()


def test_long_lines_are_bounded(log: Path) -> None:
    log.write_bytes(b"first\n" + b"\xff" * 3_000_000 + b"\n" + b"y" * LINE_BYTES + b"\nlast\n")
    first, long, fits, last = servicelog.tail(log, 9)
    assert (first, fits, last) == ("first", "y" * LINE_BYTES, "last")
    assert len(long) < LINE_BYTES + 100
    assert long.endswith("[... a long line of 3000001 bytes]")


def test_a_large_log_takes_no_longer_than_a_small_one(log: Path) -> None:
    """A sparse file of 400 GB: whoever reads it from its beginning never ends."""
    with log.open("wb") as file:
        file.seek(400_000_000_000)
        file.write(b"\none\ntwo\n")
    assert servicelog.tail(log, 2) == ("one", "two")


def test_following(log: Path) -> None:
    follower = Follower(log)
    assert list(follower.lines()) == []
    log.write_text("one\ntw")
    assert list(follower.lines()) == ["one"]
    fill(log, "a")
    lines = list(follower.lines())
    assert (lines[0][:5], lines[-1]) == ("twa 0", "end of a")
    with log.open("a") as file:
        file.write("late\n")
    shim.rotate(log, ONE_MB)
    fill(log, "b")
    shim.rotate(log, ONE_MB)
    fill(log, "c")
    lines = list(follower.lines())
    assert lines[0] == "late"
    assert [line for line in lines if line.startswith("end")] == ["end of b", "end of c"]
    log.write_text("emptied by hand\n")
    assert list(follower.lines()) == ["emptied by hand"]
    marker = log.with_name(f"{log.name}.rotating")
    marker.mkdir()
    log.write_text("x" * 100 + "\n")
    assert list(follower.lines()) == []  # until the rotation is through
    os.utime(marker, (time.time() - 60, time.time() - 60))
    assert len(list(follower.lines())) == 1  # it was killed


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("a\tb ü", "a\tb ü"),
        ("\x1b[2Jgone\x07", "\\x1b[2Jgone\\x07"),
        ("\x9b0m\r\u202eevil", "\\x9b0m\\r\\u202eevil"),
    ],
)
def test_what_a_terminal_gets(line: str, shown: str) -> None:
    assert servicelog.clean(line) == shown
