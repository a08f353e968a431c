"""A manager that is not launchd carries a whole installation: what deploy needs is what the protocol says."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import alive, ended
from toolchain.core.config import Config, rows
from toolchain.core.console import Console
from toolchain.core.errors import RolledBack, Unhealthy
from toolchain.deploy import installed, installer
from toolchain.deploy.journal import INSTALL_STEPS, UNINSTALL_STEPS
from toolchain.service import managers

from . import process_manager
from .process_manager import KIND, ProcessManager
from .site import Site, identifier, install

pytestmark = pytest.mark.slow

_names = itertools.count()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(managers.MANAGERS, KIND, managers.Kind(process_manager.make))
    monkeypatch.setenv("PYTEST_OWNER_PID", str(os.getpid()))


def _place(folder: Path) -> Iterator[Site]:
    site = Site.make(folder).configured(service_manager=KIND)
    yield site
    for file in (site.prefix.folder / KIND).glob("*.loaded"):
        ProcessManager(site.prefix.folder / KIND, file.stem).unload()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Site]:
    yield from _place(tmp_path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A place with a release running."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(managers.MANAGERS, KIND, managers.Kind(process_manager.make))
        for place in _place(tmp_path_factory.mktemp("kept")):
            place.install(place.release("good"))
            yield place


def _install(release: Path, config: Config, console: Console) -> object:
    """As `install`, in a process where this manager is not known yet."""
    managers.MANAGERS[KIND] = managers.Kind(process_manager.make)
    return install(release, config, console)


def _uninstall(config: Config, console: Console) -> object:
    """As the installer's, in a process where this manager is not known yet."""
    managers.MANAGERS[KIND] = managers.Kind(process_manager.make)
    return installer.uninstall(config, console)


def test_install_upgrade_roll_back_and_uninstall(empty: Site) -> None:
    a, b = empty.release("a"), empty.release("b")
    first = empty.install(a)
    assert (first.active, first.healthy) == (identifier(a), True)
    assert alive(first.pid)
    second = empty.install(b)
    assert (second.active, second.parent, second.healthy) == (identifier(b), identifier(a), True)
    assert ended(first.pid)
    assert empty.install(b) == second  # the pid too: nothing was restarted
    back = installer.rollback(empty.config, empty.console)
    assert (back.active, back.healthy) == (identifier(a), True)
    registered = installed.read(empty.prefix)
    assert (registered.domain, Path(registered.unit_file).suffix) == ("", ".json")
    empty.assert_clean()
    gone = installer.uninstall(empty.config, empty.console)
    assert gone.reason == "nothing is installed"
    assert ended(back.pid)
    assert not Path(registered.unit_file).exists()
    assert not empty.emulator.joinpath("socket").exists()  # launchd's emulator was never asked


def test_a_new_label_replaces_the_old_service(empty: Site) -> None:
    release = empty.release("1")
    old = empty.install(release)
    new = empty.configured(label="io.turboquant.other").install(release)
    assert new.healthy
    assert ended(old.pid)
    assert [path.name for path in (empty.prefix.folder / KIND).glob("*.json")] == ["io.turboquant.other.json"]


@pytest.mark.parametrize(
    ("does", "reason"),
    [("exit", "keeps exiting, last with: 3"), ("fail-to-generate", "does not generate")],
)
def test_an_unhealthy_release_is_rolled_back(kept: Site, does: str, reason: str) -> None:
    old = kept.status()
    with pytest.raises(RolledBack, match=reason):
        kept.install(kept.release(f"bad-{next(_names)}", does=does))
    assert (kept.status().active, kept.status().healthy) == (old.active, True)
    kept.assert_clean()


def test_an_unhealthy_first_release_leaves_nothing_running(empty: Site) -> None:
    with pytest.raises(Unhealthy, match="stopped and unloaded"):
        empty.install(empty.release("bad", does="exit"))
    assert not ProcessManager(empty.prefix.folder / KIND, empty.config.deploy.label).inspect().loaded
    empty.assert_clean()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("step", INSTALL_STEPS)
def test_killed_upgrade(kept: Site, step: str) -> None:
    kept.assert_upgrade_survives(_install, kept.release(f"new-{next(_names)}"), at=step)


@pytest.mark.parametrize("step", UNINSTALL_STEPS)
def test_killed_uninstall_is_finished(empty: Site, step: str) -> None:
    pid = empty.install(empty.release("first")).pid
    empty.killed(_uninstall, empty.config, at=step)
    assert empty.status().reason == "nothing is installed"
    assert ended(pid)


def test_the_setting_names_the_managers_that_there_are() -> None:
    (row,) = [row for row in rows(Config()) if row.key == "deploy.service_manager"]
    assert set(row.allowed.split(" | ")) == {"auto", *managers.MANAGERS} - {KIND}
