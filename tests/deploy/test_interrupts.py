"""Ctrl-C and SIGTERM during a deploy, at a step and at random moments: what is then active, and what is said."""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from toolchain.deploy.journal import Journal

from .kills import OPERATIONS, SIGNALS, Place
from .site import Site

pytestmark = pytest.mark.slow

_names = itertools.count()


def ends(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Those of `./inv`, without its count of them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, ends)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


def sent(monkeypatch: pytest.MonkeyPatch, step: str, number: signal.Signals) -> None:
    """A signal comes when a step begins."""
    original = Journal.begin_step

    def begin(self: Journal, name: str) -> None:
        original(self, name)
        if name == step:
            signal.raise_signal(number)

    monkeypatch.setattr(Journal, "begin_step", begin)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("environment", r"interrupted: nothing was changed, release \S+ is active"),
        ("health", r"interrupted: rolled back: release \S+ is active and healthy"),
        ("bless", r"interrupted: rolled back: release \S+ is active and healthy"),
    ],
)
def test_an_interrupted_upgrade_is_taken_back(
    running: Site,
    step: str,
    said: str,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = running.status()
    new = running.release(f"new-{next(_names)}")
    with monkeypatch.context() as during:
        sent(during, step, number)
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
            running.install(new)
    assert re.search(said, capsys.readouterr().err)
    assert not running.prefix.journal.exists()  # before the next command
    now = running.status()
    assert (now.active, now.healthy, now.releases) == (old.active, True, old.releases)
    running.assert_clean()


@pytest.mark.parametrize("step", ["copy", "unit", "health"])
def test_an_interrupted_first_install_leaves_nothing_installed(
    site: Site, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(monkeypatch, step, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        site.install(site.release("first"))
    assert not site.prefix.journal.exists()
    assert site.status().reason in ("nothing is installed", "no release is active")
    assert not list((site.emulator / "LaunchAgents").glob("*.plist"))


def test_a_second_interrupt_stops_at_once_and_the_next_command_finishes(
    running: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = running.status()
    new = running.release(f"new-{next(_names)}")
    with monkeypatch.context() as during:
        for step in ("health", "restore"):
            sent(during, step, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            running.install(new)
    assert running.prefix.journal.exists()
    assert "the next deploy command, such as deploy.status, finishes or undoes it" in capsys.readouterr().err
    now = running.status()
    assert (now.active, now.healthy) == (old.active, True)
    running.assert_clean()


def test_the_first_interrupt_does_not_stop_a_restore(
    running: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = running.status()
    bad = running.release(f"bad-{next(_names)}", does="exit")
    times = itertools.count()
    original = Journal.begin_step

    def begin(self: Journal, name: str) -> None:
        original(self, name)
        if name == "restore" and next(times) == 0:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as during:
        during.setattr(Journal, "begin_step", begin)
        with pytest.raises(KeyboardInterrupt):
            running.install(bad)
    assert "interrupted; going back all the same" in capsys.readouterr().err
    assert not running.prefix.journal.exists()
    now = running.status()
    assert (now.active, now.healthy) == (old.active, True)


def test_random_moments(tmp_path: Path) -> None:
    """Five; `python -m tests.deploy.kills` runs hundreds."""
    place = Place(tmp_path / "place")
    try:
        outcomes = [place.run(seed) for seed in range(3, 8)]
    finally:
        place.site.close()
    assert [one for one in outcomes if one.violations] == []
    assert {one.operation for one in outcomes} == set(OPERATIONS)
    assert {one.sent for one in outcomes} < set(SIGNALS)
