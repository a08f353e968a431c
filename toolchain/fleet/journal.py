"""The journal of a rollout: one line of JSON for each thing that happened, on the disk before the next one begins.

A controller that is killed leaves it; the next one reads it and goes on. `results` folds it into what is known of each
host. The folder WORKSPACE/fleet/ROLLOUT/ also has rollout.json, what the rollout is, and its reports.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from ..core import records
from ..core.delivery_errors import InventoryInvalid
from ..core.errors import DiskFull, RecordError
from ..core.records import record
from .inventory import Inventory
from .outcome import Change, Facts, HostResult, Outcome, Revert

_MOST_BYTES = 32 << 20
"""of a journal, so that its events fit into memory"""
JOURNAL, STATE = "journal.jsonl", "rollout.json"
Kind = Literal[
    "started", "resumed", "begun", "found", "planned", "applying", "applied", "ended", "retrying", "halted",
    "reverting", "reverted", "interrupted", "finished", "abandoned",
]  # fmt: skip
End = Literal["", "done", "halted", "abandoned", "rolled-back"]


@record
class Event:
    """A line. Which fields it has depends on its kind."""

    at: str
    event: Kind
    host: str = ""
    wave: int = 0
    facts: Facts | None = None
    release: str = ""
    changes: tuple[Change, ...] = ()
    outcome: Outcome = "waiting"
    error: str = ""
    message: str = ""
    hint: str = ""
    tokens_per_second: float = 0.0
    seconds: float = 0.0
    revert: Revert = ""
    pid: int = 0


@record
class Rollout:
    """rollout.json: what is rolled out where, and how it ended. Written atomically."""

    id: str
    identity: str
    """digest of inventory, asked release and files: only the same rollout is resumed"""
    release: str
    """as it was asked for; empty: what the channel names"""
    inventory: Inventory
    started: str
    ended: str = ""
    end: End = ""


_PLAIN = records.to_builtins(Event(at="", event="started")) | {"event": ""}
"""fields that a line leaves out"""


def now() -> str:
    """UTC, in milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str) -> datetime.datetime:
    """A time as `now` writes it. Raises `ValueError`."""
    found = datetime.datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text!r} does not say its time zone")
    return found


class Journal:
    """The folder of one rollout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._torn = True
        """whether the file may end with part of a line"""

    @property
    def state(self) -> Rollout:
        """What the rollout is. Raises `InventoryInvalid`."""
        path = self.folder / STATE
        try:
            found = records.read(path, Rollout)
            for text in filter(None, (found.started, found.ended)):
                moment(text)
        except (RecordError, ValueError) as error:
            said = error.message if isinstance(error, RecordError) else f"{path}: {error}"
            raise InventoryInvalid(said, hint="fleet.apply --abandon begins another rollout") from error
        return found

    def begin(self, rollout: Rollout) -> None:
        """Make the folder; without rollout.json it is none."""
        records.make_folder(self.folder)
        self.add(Event(at=now(), event="started", release=rollout.release, pid=os.getpid()))
        self._write(rollout)

    def end(self, end: End) -> None:
        """The rollout needs nothing more."""
        self._write(dataclasses.replace(self.state, ended=now(), end=end))

    def _write(self, rollout: Rollout) -> None:
        """Readable by its owner alone: the desired state may hold a key."""
        records.write_bytes(self.folder / STATE, records.to_json(rollout).encode(), mode=0o600)

    def add(self, event: Event) -> None:
        """Append a line, and wait until the disk has it. From any thread. Raises `DiskFull`."""
        fields = records.to_builtins(event)
        line = records.to_json_line({name: value for name, value in fields.items() if value != _PLAIN[name]}).encode()
        with self._lock:
            descriptor = os.open(self.folder / JOURNAL, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if self._torn:
                    _cut(descriptor)
                    records.flush_directory(self.folder)
                self._torn = True  # until this line is whole
                if os.write(descriptor, line) != len(line):
                    raise DiskFull(f"{self.folder / JOURNAL}: no space left on the disk", hint="free some space")
                records.flush_to_disk(descriptor)
                self._torn = False
            finally:
                os.close(descriptor)

    def events(self) -> tuple[Event, ...]:
        """All whole lines. Raises `InventoryInvalid` for one that is malformed."""
        path = self.folder / JOURNAL
        try:
            lines = io.BytesIO(records.read_bytes(path, limit=_MOST_BYTES))
        except OSError as error:
            raise InventoryInvalid(f"{path}: {error.strerror}", hint="fleet.apply --abandon") from error
        found = []
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                event = msgspec.json.decode(line, type=Event)
                moment(event.at)
                found.append(event)
            except records.UNREADABLE as error:
                raise InventoryInvalid(
                    f"{path}:{number}: no line of a journal: {error}",
                    hint="fleet.apply --abandon begins another rollout, which asks every host anew",
                ) from error
        return tuple(found)


def _cut(descriptor: int) -> None:
    """Cut off the line that a killed controller did not finish."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    end, step = size, 1 << 16
    while end > 0:
        start = max(0, end - step)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end != size:
        os.ftruncate(descriptor, end)


def results(inventory: Inventory, events: Iterable[Event]) -> dict[str, HostResult]:
    """What is known of each host, in the inventory's order."""
    known = {host.name: HostResult(name=host.name, wave=host.wave, group=host.group) for host in inventory.hosts}
    for event in events:
        if event.host in known:
            known[event.host] = after(known[event.host], event)
    return known


def after(one: HostResult, event: Event) -> HostResult:
    """A host, as it is known after the event."""
    change = dataclasses.replace
    match event.event:
        case "begun":
            return change(
                one, outcome="in-flight", began=one.began or event.at, attempts=one.attempts + 1,
                error="", message="", hint="",
            )  # fmt: skip
        case "found":  # only the first is from before the rollout
            return change(one, before=event.facts) if one.before is None else one
        case "planned":
            return change(one, release=event.release, changes=event.changes or one.changes)
        case "applying":
            return change(one, touched=True, applied=False)
        case "applied":
            return change(one, applied=True, changes=event.changes or one.changes)
        case "ended":
            return change(
                one, outcome=event.outcome, after=event.facts or one.after, error=event.error, message=event.message,
                hint=event.hint, tokens_per_second=event.tokens_per_second, seconds=one.seconds + event.seconds,
            )  # fmt: skip
        case "reverted":
            return change(
                one, revert=event.revert, revert_message=event.message, after=event.facts or one.after
            )  # fmt: skip
    return one


def rollouts(home: Path) -> tuple[Journal, ...]:
    """The rollouts in the folder, oldest first."""
    if not home.is_dir():
        return ()
    return tuple(Journal(path) for path in sorted(home.iterdir()) if (path / STATE).is_file())
