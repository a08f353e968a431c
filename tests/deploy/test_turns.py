"""The shim's claim: of several copies that launchd started one serves, and the others wait for its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolchain.deploy import shim

from .turns import Turns

pytestmark = pytest.mark.slow


@pytest.fixture(params=["/proc", "ps"])
def turns(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Turns]:
    """Copies of the shim that find out about processes as on Linux, and as on macOS."""
    found = Turns(tmp_path, without_proc=request.param == "ps")
    yield found
    found.close()


def test_a_second_copy_waits_and_takes_over(turns: Turns) -> None:
    first = turns.start()
    turns.await_serving(first)
    assert shim.holder(turns.prefix) == first
    second = turns.start()
    turns.await_told(first)
    assert turns.serving() == [first]
    os.kill(first, signal.SIGKILL)
    turns.await_serving(second)
    assert shim.holder(turns.prefix) == second
    assert len(list(turns.prefix.run.iterdir())) == 1


def test_a_copy_that_waits_ends_at_once(turns: Turns) -> None:
    turns.await_serving(turns.start())
    waiting = turns.start()
    turns.await_told(turns.serving()[0])
    begun = time.monotonic()
    os.kill(waiting, signal.SIGTERM)
    assert turns.wait(waiting) == -signal.SIGTERM
    assert time.monotonic() - begun < 0.5


def test_a_pid_that_was_used_again_holds_no_claim(turns: Turns) -> None:
    turns.prefix.run.mkdir()
    (turns.prefix.run / "claim.7").symlink_to(f"{os.getpid()} 1")
    mine = turns.start()
    turns.await_serving(mine)
    assert [path.name for path in turns.prefix.run.iterdir()] == ["claim.8"]


@pytest.mark.parametrize("target", ["", "-1 2", "x", "999999999 5", "1 2 3 4", "$(touch x)"])
def test_a_damaged_claim_is_none(turns: Turns, target: str) -> None:
    turns.prefix.run.mkdir()
    (turns.prefix.run / "claim.1").symlink_to(target or "/")
    (turns.prefix.run / "claim.x").write_text("")
    (turns.prefix.run / "claim.08").write_text("")
    turns.await_serving(turns.start())
    assert [path.name for path in turns.prefix.run.iterdir()] == ["claim.2"]


def test_a_claim_that_cannot_be_made_stops_no_service(turns: Turns) -> None:
    turns.prefix.run.write_text("in the way")
    turns.await_serving(turns.start())
    assert b"a second copy of this service would not be noticed" in turns.log.read_bytes()


def test_of_many_copies_one_serves_at_any_time(turns: Turns) -> None:
    copies = [turns.start() for _ in range(6)]
    assert turns.survive(copies, kills=3) == 3
