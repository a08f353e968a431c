"""The deploy area on the emulator, with releases of the miniature, and what it says when something is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.deploy.site import Site, identifier
from tests.shared import Miniatures
from toolchain.build import load
from toolchain.core.console import Console
from toolchain.core.errors import ReleaseInvalid
from toolchain.core.run import Run
from toolchain.firstrun import leftovers
from toolchain.firstrun.areas import deploy
from toolchain.firstrun.service import Service

from .benches import bench, built, release_of


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    place = Site.make(tmp_path)
    yield place
    place.close()


@pytest.mark.slow
def test_all_of_it_is_confirmed_on_the_emulator(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    miniatures: Miniatures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # a step before the swap, and those around the restart; a person runs all of them
    monkeypatch.setattr(deploy, "INSTALL_STEPS", ("shim", "health"))
    monkeypatch.setattr(deploy, "ROLLBACK_STEPS", ("restart",))
    monkeypatch.setattr(deploy, "UNINSTALL_STEPS", ("remove",))
    with built(tmp_path_factory, miniatures) as run, bench(tmp_path, run, release_of(run)) as used:
        found = list(deploy.AREA.examine(used))
        assert [(one.id, one.status, one.reason) for one in found if one.status != "confirmed"] == []
        assert [one.id for one in found] == [one.id for one in deploy.AREA.assumptions]
        assert all(one.evidence for one in found)
        killed = next(one for one in found if one.id == "deploy.kill-install")
        assert [one.code for one in killed.evidence] == [-9, 0, -9, 0]
    assert not (tmp_path / "pre fix" / "current").exists()


def test_without_a_release_it_says_why(tmp_path: Path, site: Site) -> None:
    run = Run(config=site.config, console=Console())
    with bench(tmp_path / "bench", run) as used:
        used.no_release = "the build ended with 40"
        with pytest.raises(ReleaseInvalid, match=r"no release was built \(the build ended with 40\)"):
            next(iter(deploy.AREA.examine(used)))


@pytest.mark.slow
def test_a_release_that_exits_refutes_the_install_and_leaves_nothing(tmp_path: Path, site: Site) -> None:
    made = site.release("bad", does="exit")
    workspace = tmp_path / "workspace"
    run = Run(config=replace(site.config, workspace=str(workspace)), console=Console())
    shutil.copytree(made, workspace / "releases" / identifier(made), symlinks=True)
    with bench(tmp_path / "bench", run, load(made)) as used:
        (finding,) = deploy.AREA.examine(used)
        assert (finding.id, finding.status) == ("deploy.install", "refuted")
        assert finding.reason.startswith("exit code 52: ")
        assert "keeps exiting" in finding.reason
    assert leftovers.of_uninstall(Service(used).prefix, Service(used).definition) == []


@pytest.mark.slow
def test_leftovers_are_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    now = site.install(site.release("one"))
    assert leftovers.of_deploy(site.prefix, now) == []
    (site.prefix.releases / "stray").mkdir()
    (site.prefix.run / "starts.new").touch()
    monkeypatch.setattr(leftovers, "SETTLED_S", 0.0)
    assert leftovers.of_deploy(site.prefix, now) == [
        f"{site.prefix.run / 'starts.new'} is left",
        f"{site.prefix.releases} has {', '.join(sorted([now.active, 'stray']))}, known are {now.active}",
    ]
