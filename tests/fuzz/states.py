"""Files of state: of a deploy, of a rollout, and of a validation."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

from toolchain.core import records
from toolchain.core.errors import RecordError
from toolchain.deploy import crashloop, installed, restorepoint
from toolchain.deploy.installed import Fallback, InstalledRelease, InstallState
from toolchain.deploy.journal import Journal as DeployJournal
from toolchain.deploy.journal import JournalEntry
from toolchain.deploy.prefix import Prefix
from toolchain.fleet import journal as rollout
from toolchain.fleet import report
from toolchain.fleet.inventory import Host, Inventory
from toolchain.fleet.journal import Event, Rollout
from toolchain.fleet.outcome import Facts
from toolchain.fleet.rules import Rules
from toolchain.models.quality.divergence import Compared
from toolchain.proofs import Verification
from toolchain.text import as_text
from toolchain.validation.judgement import Entered, Judgement
from toolchain.validation.result import TestResult
from toolchain.validation.store import Store

from .subject import Subject, as_json, damaged, odd

_NOW = "2026-11-26T18:00:00+00:00"
_STATE = InstallState(
    active="b-1",
    releases=(
        InstalledRelease(id="a-1", parent="", version="1", installed=_NOW),
        InstalledRelease(id="b-1", parent="a-1", version="2", installed=_NOW, environment={"OLLAMA_HOST": "x"}),
    ),
    label="io.turboquant.ollama",
    domain="gui/501",
    unit_file="/Users/a/Library/LaunchAgents/io.turboquant.ollama.plist",
    fallback=Fallback(bad="c", parent="b-1", at=_NOW),
)
_ENTRY = JournalEntry(operation="install", step="health", release="b-1", previous="a-1", environment_before="A=b\n")
_HOST = Host(
    name="m1",
    address="m1.example",
    port=22,
    user="a",
    group="",
    wave=1,
    sudo=False,
    fingerprints=(),
    known_hosts="",
    key="",
    folder="",
    desired={},
)
_ROLLOUT = Rollout(
    id="r", identity="d", release="b-1", started=_NOW, inventory=Inventory(path="i", hosts=(_HOST,), rules=Rules())
)
_EVENTS = (
    Event(at=_NOW, event="started", release="b-1", pid=1),
    Event(at=_NOW, event="begun", host="m1", wave=1),
    Event(at=_NOW, event="found", host="m1", facts=Facts(release="a-1", healthy=True)),
    Event(at=_NOW, event="ended", host="m1", outcome="changed", tokens_per_second=3.5, seconds=2.0),
    Event(at=_NOW, event="finished"),
)
_JUDGEMENT = Judgement(verdicts={"a/b": Entered(verdict="same", answers_sha256="0" * 64, who="me", when=_NOW)})


def _deploy(path: Path) -> None:
    prefix = Prefix(path.parent)
    prefix.run.mkdir()
    (prefix.run / "fallback").write_bytes(path.read_bytes()[:1500])
    _into(path, prefix.state)
    state = installed.read(prefix)
    installed.damage(prefix)
    crashloop.is_pending(prefix)
    records.to_json((state, state.parent(), state.registration()))
    crashloop.found(prefix, state)
    restorepoint.state(prefix)
    _into(path, prefix.journal)
    journal = DeployJournal(prefix.journal)
    journal.read()


def _fleet(path: Path) -> None:
    journal = rollout.Journal(path.parent)
    _into(path, path.parent / rollout.JOURNAL)
    records.write(path.parent / rollout.STATE, _ROLLOUT)
    events = journal.events()
    rollout.results(_ROLLOUT.inventory, events)
    made = report.of(journal)
    as_text(made)
    records.to_json(made)
    report.save(made, path.parent)


def _state_of_fleet(path: Path) -> None:
    journal = rollout.Journal(path.parent)
    _into(path, path.parent / rollout.STATE)
    journal.add(_EVENTS[0])
    rollout.rollouts(path.parent.parent)
    made = report.of(journal)
    as_text(made)


def _validation(path: Path) -> None:
    store = Store(path.parent / "v")
    for key, kind in (
        ("perplexity/c", Compared),
        ("needle/room/1", int),
        ("session/x", TestResult),
        ("d", Verification),
    ):
        _into(path, store.path(key))
        _expected(lambda key=key, kind=kind: store.kept(key, kind, kind))
    list(store.keys())
    _into(path, path.parent / "judgement.json")
    Judgement.read(path.parent)


def _expected(read: Any) -> None:
    """One of several reads: the others go on."""
    with contextlib.suppress(RecordError):
        records.to_json(read())


def _into(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())


def _json_of(*seeds: Any) -> Any:
    """Cases of these records."""
    plain = [records.to_builtins(seed) for seed in seeds]

    def make(dice: random.Random) -> bytes:
        seed = dice.choice(plain)
        data = as_json(odd(seed, dice, ("b-1", "install", _NOW), deepest=250) if dice.random() < 0.6 else seed)
        return data if dice.random() < 0.5 else damaged(data, dice, (b'"a":1,', b"null", b"[[[["))

    return make


def _lines(dice: random.Random) -> bytes:
    """A journal of lines."""
    events = [records.to_builtins(one) for one in dice.choices(_EVENTS, k=dice.randint(1, 8))]
    lines = [as_json(odd(one, dice, deepest=250) if dice.random() < 0.3 else one) for one in events]
    data = b"\n".join(lines) + b"\n"
    return data if dice.random() < 0.5 else damaged(data, dice, (b"\n", b"{}\n", b"\n" * 3_000_000))


DEPLOY = Subject(make=_json_of(_STATE, _ENTRY), read=_deploy)
FLEET = Subject(make=_lines, read=_fleet)
ROLLOUT = Subject(make=_json_of(_ROLLOUT), read=_state_of_fleet)
VALIDATION = Subject(make=_json_of(_JUDGEMENT), read=_validation)
