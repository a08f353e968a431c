"""The journal survives a kill at any byte, and says what is known of each host."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.core.delivery_errors import InventoryInvalid
from toolchain.fleet.inventory import Host, Inventory
from toolchain.fleet.journal import JOURNAL, STATE, Event, Journal, Rollout, results, rollouts
from toolchain.fleet.outcome import Facts
from toolchain.fleet.rules import Rules

AT = "2026-11-26T18:00:00.000Z"
HOST = Host(
    name="mac-1", address="10.0.0.1", port=22, user="a", group="", wave=1, sudo=False, fingerprints=("SHA256:x",),
    known_hosts="", key="", folder="", desired={},
)  # fmt: skip
FLEET = Inventory(path="/fleet.yaml", hosts=(HOST,), rules=Rules())
COURSE = (
    Event(at=AT, event="begun", host="mac-1"),
    Event(at=AT, event="found", host="mac-1", facts=Facts(release="old", healthy=True)),
    Event(at=AT, event="planned", host="mac-1", release="new"),
    Event(at=AT, event="applying", host="mac-1"),
    Event(at=AT, event="begun", host="mac-1"),  # by the next controller
    Event(at=AT, event="found", host="mac-1", facts=Facts(release="new", healthy=True)),
    Event(at=AT, event="ended", host="mac-1", outcome="changed", facts=Facts(release="new", healthy=True), seconds=2),
)


def begun(folder: Path) -> Journal:
    journal = Journal(folder / "one")
    journal.begin(Rollout(id="one", identity="x", release="", inventory=FLEET, started=AT))
    return journal


def test_what_it_says_of_a_host() -> None:
    one = results(FLEET, COURSE)["mac-1"]
    assert (one.outcome, one.touched, one.attempts, one.release, one.seconds) == ("changed", True, 2, "new", 2)
    assert one.before is not None
    assert one.before.release == "old"  # not what the second controller found
    assert results(FLEET, COURSE[:4])["mac-1"].outcome == "in-flight"
    assert results(FLEET, ())["mac-1"].outcome == "waiting"


def test_a_line_that_was_not_finished_is_as_if_it_had_not_been_begun(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    for event in COURSE:
        journal.add(event)
    whole = (journal.folder / JOURNAL).read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for size in (last, last + 1, len(whole) - 2, len(whole) - 1):
        (journal.folder / JOURNAL).write_bytes(whole[:size])
        assert Journal(journal.folder).events()[1:] == COURSE[:-1]
        Journal(journal.folder).add(COURSE[-1])
        assert (journal.folder / JOURNAL).read_bytes() == whole


def test_a_line_that_is_none_is_refused(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    with (journal.folder / JOURNAL).open("a") as file:
        file.write('{"at": "x", "event": "nonsense"}\n')
    with pytest.raises(InventoryInvalid, match=r"journal\.jsonl:2: no line of a journal"):
        journal.events()
    (journal.folder / STATE).write_text("{")
    with pytest.raises(InventoryInvalid, match="Rollout"):
        _ = journal.state


def test_a_folder_without_a_state_is_no_rollout(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "two").mkdir()
    (tmp_path / "lock").touch()
    assert [journal.folder.name for journal in rollouts(tmp_path)] == ["one"]
    assert rollouts(tmp_path / "nowhere") == ()
