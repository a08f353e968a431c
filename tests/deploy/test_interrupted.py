"""kill -9 at every step of a deploy; one command must then leave a healthy service, the old one or the new one."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import alive
from toolchain.core import records
from toolchain.core.errors import ManagerUnavailable
from toolchain.deploy import installer, journal
from toolchain.deploy.journal import BEFORE_SWAP, INSTALL_STEPS, ROLLBACK_STEPS, UNINSTALL_STEPS, JournalEntry
from toolchain.service.emulator import settings

from .site import Site, await_file, identifier, install

pytestmark = pytest.mark.slow

_names = itertools.count()


@pytest.fixture
def fresh(running: Site) -> Path:
    """A release that was never installed."""
    return running.release(f"new-{next(_names)}")


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = Site.make(tmp_path_factory.mktemp("empty"))
    yield place
    place.close()


def test_the_steps_are_those_that_an_install_announces(
    running: Site, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    original = journal.Journal.begin_step

    def spy(self: journal.Journal, step: str) -> None:
        seen.append(step)
        original(self, step)

    monkeypatch.setattr(journal.Journal, "begin_step", spy)
    running.install(fresh)
    assert tuple(seen) == INSTALL_STEPS


@pytest.mark.sampled(4)
@pytest.mark.parametrize("step", INSTALL_STEPS)
def test_killed_first_install(empty: Site, step: str) -> None:
    release = empty.release("first")
    empty.killed(install, release, empty.config, at=step)
    after = empty.install(release) if step in BEFORE_SWAP else empty.status()
    assert (after.active, after.healthy, after.parent) == (identifier(release), True, "")
    assert alive(after.pid)
    empty.assert_clean()


@pytest.mark.sampled(5)
@pytest.mark.parametrize("step", INSTALL_STEPS)
def test_killed_upgrade(running: Site, fresh: Path, step: str) -> None:
    running.assert_upgrade_survives(install, fresh, at=step)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("step", ROLLBACK_STEPS[::2])
def test_killed_rollback(running: Site, fresh: Path, step: str) -> None:
    old = running.status()
    running.install(fresh)
    running.killed(installer.rollback, running.config, at=step)
    after = running.status()
    assert (after.active, after.healthy) == (old.active, True)
    running.assert_clean()


def test_killed_while_going_back(running: Site) -> None:
    old = running.status()
    bad = running.release(f"bad-{next(_names)}", does="exit")
    running.killed(install, bad, running.config, at=journal.RESTORE)
    after = running.status()
    assert (after.active, after.healthy, after.releases) == (old.active, True, old.releases)
    running.assert_clean()


def test_killed_reinstall_with_another_environment(running: Site) -> None:
    old = running.status()
    changed = running.configured(kv_cache_type="f16")
    release = running.prefix.release(old.active)
    before = (release / "environment").read_text()
    source = running.built(old.active)
    changed.killed(install, source, changed.config, at="shim")
    assert (release / "environment").read_text() != before
    assert running.status().healthy
    assert (release / "environment").read_text() == before


@pytest.mark.parametrize("step", UNINSTALL_STEPS)
def test_killed_uninstall_is_finished(empty: Site, step: str) -> None:
    pid = empty.install(empty.release("first")).pid
    empty.killed(installer.uninstall, empty.config, at=step)
    assert empty.status().reason == "nothing is installed"
    assert not alive(pid)
    assert not empty.prefix.releases.exists()


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment(running: Site, fresh: Path, seed: int) -> None:
    """Not at the border of a step but somewhere inside."""
    old = running.status()
    with running.child(install, fresh, running.config) as process:
        await_file(running.prefix.journal)
        time.sleep(random.Random(seed).uniform(0, 0.8))
        process.kill()
        process.join()
    after = running.status()
    assert after.active in (old.active, identifier(fresh))
    assert after.healthy
    running.assert_clean()


def test_a_release_that_kills_its_deployer_again_and_again_is_given_up(running: Site, fresh: Path) -> None:
    """As when its health check takes the machine down: the tries are counted on the disk."""
    old = running.status()
    running.killed(install, fresh, running.config, at="health")
    for left in reversed(range(journal.TRIES)):
        running.killed(installer.status, running.config, at="health")
        assert records.read(running.prefix.journal, JournalEntry).tries_left == left
    after = running.status()
    assert (after.active, after.healthy) == (old.active, True)
    running.assert_clean()


def test_while_launchd_cannot_be_asked_nothing_is_undone(running: Site, fresh: Path) -> None:
    running.killed(install, fresh, running.config, at="health")
    known = settings.read(running.emulator)
    elsewhere = settings.Settings(owner_pid=os.getpid(), domains=("system",))
    settings.write(running.emulator, elsewhere)
    with pytest.raises(ManagerUnavailable, match="state of the service is unknown"):
        running.status()
    assert records.read(running.prefix.journal, JournalEntry).tries_left == journal.TRIES
    settings.write(running.emulator, known)
    assert running.status().active == identifier(fresh)
