"""A release that dies after its deploy: the shim starts its parent, once, and the next command says so."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import alive
from toolchain.deploy import crashloop, installed, installer, shim
from toolchain.deploy.prefix import Prefix
from toolchain.service import managers
from toolchain.service.emulator import settings

from .site import Site


def behave(site: Site, release: str, does: str) -> None:
    """Change what an installed release does from its next start on."""
    path = site.prefix.release(release) / "lib/ollama/behaviour.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"does": does}))


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_release_that_keeps_exiting_gives_way_to_its_parent_once(site: Site) -> None:
    settings.write(site.emulator, settings.Settings(owner_pid=os.getpid(), throttle_cap_s=0.05))
    old = site.install(site.release("old")).active
    new = site.install(site.release("new"))
    assert new.fallback == ""
    behave(site, new.active, "exit")
    os.kill(new.pid, signal.SIGKILL)
    eventually((site.prefix.run / "fallback").exists)
    eventually(lambda: f"started {old}" in site.log().rpartition("kept exiting")[2])
    assert f"release {new.active} kept exiting; starting {old} instead" in site.log()
    assert site.prefix.active() == new.active  # no command came yet
    starts = site.log().count(f"started {new.active}")

    after = site.status()
    assert (after.active, after.healthy, site.prefix.active()) == (old, True, old)
    assert f"release {new.active} kept exiting; rolled back to {old} at 20" in after.fallback
    assert alive(after.pid)
    assert starts == site.log().count(f"started {new.active}")
    behave(site, new.active, "serve")
    site.assert_clean()
    assert site.status().fallback == after.fallback  # until the next install

    last = site.install(site.release("last"))
    assert (last.fallback, last.parent) == ("", old)
    assert not (site.prefix.run / "fallback").exists()


@pytest.mark.slow
def test_a_parent_that_keeps_exiting_too_stays(site: Site) -> None:
    settings.write(site.emulator, settings.Settings(owner_pid=os.getpid(), throttle_cap_s=0.02))
    first, second, third = (site.install(site.release(name)) for name in ("first", "second", "third"))
    for release in (second, third):
        behave(site, release.active, "exit")
    os.kill(third.pid, signal.SIGKILL)
    eventually(lambda: site.log().count(f"started {second.active}") > crashloop.MOST_STARTS + 3)
    after = site.status()
    assert (after.active, after.healthy) == (second.active, False)
    assert first.active not in site.log().rpartition("kept exiting")[2]
    back = installer.rollback(site.config, site.console)
    assert (back.active, back.healthy, back.fallback) == (first.active, True, "")


class Shim:
    """The shim in a prefix of two releases whose program says which it is; there is no manager."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.prefix = Prefix(folder)
        for name, parent in (("bad", "good"), ("good", "")):
            program = self.prefix.release(name) / "bin/ollama"
            program.parent.mkdir(parents=True)
            program.write_text(f"#!/bin/sh\necho {name}\n")
            program.chmod(0o755)
            (self.prefix.release(name) / "environment").write_text("A=b\n")
            installed.name_parent(self.prefix, name, parent)
        self.prefix.current.symlink_to("releases/bad")
        manager = managers.choose(site.config.deploy, folder)
        self.prefix.shim.parent.mkdir()
        self.prefix.shim.write_bytes(shim.render(self.prefix, manager, site.config.deploy))

    def start(self) -> str:
        done = subprocess.run(["/bin/sh", self.prefix.shim], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def starts(self, *times: float) -> None:
        self.prefix.run.mkdir(exist_ok=True)
        (self.prefix.run / "starts").write_text("".join(f"bad {at:.0f}\n" for at in times))


@pytest.fixture
def bare(tmp_path: Path) -> Shim:
    (tmp_path / "site").mkdir()
    return Shim(tmp_path / "pre & fix", Site.make(tmp_path / "site"))


def test_starts_are_counted(bare: Shim) -> None:
    assert [bare.start() for _ in range(crashloop.MOST_STARTS + 3)] == ["bad"] * crashloop.MOST_STARTS + ["good"] * 3
    bad, parent, at = (bare.prefix.run / "fallback").read_text().split()
    assert (bad, parent) == ("bad", "good")
    assert abs(int(at) - time.time()) < 60
    assert sorted(path.name for path in bare.prefix.run.glob("[!c]*")) == ["fallback", "starts"]  # without claims


def test_old_starts_and_those_of_a_clock_that_ran_ahead_do_not_count(bare: Shim) -> None:
    now = time.time()
    bare.starts(*[now - crashloop.SLOW_WITHIN_S - 5] * 9, *[now + 5000] * 9)
    assert bare.start() == "bad"
    assert len((bare.prefix.run / "starts").read_text().splitlines()) == 1


@pytest.mark.parametrize(("alive_s", "before", "started"), [(30, 8, "good"), (30, 7, "bad"), (80, 30, "bad")])
def test_a_release_that_dies_slowly(bare: Shim, alive_s: int, before: int, started: str) -> None:
    """It never exceeds the starts within the short window. One that dies less often than that is left alone."""
    now = time.time()
    bare.starts(*[now - alive_s * number for number in range(1, before + 1)])
    assert bare.start() == started


def test_few_starts_are_kept(bare: Shim) -> None:
    (bare.prefix.release("good") / "environment").unlink()  # so that nothing ends the counting
    now = time.time()
    bare.starts(*[now - number for number in range(1, 50)])
    for _ in range(3):
        assert bare.start() == "bad"
        times = [int(line.split()[1]) for line in (bare.prefix.run / "starts").read_text().splitlines()]
        assert len(times) == crashloop.SLOW_STARTS + 1
        assert times == sorted(times, reverse=True)
        assert times[0] >= int(now)


def test_a_release_of_an_earlier_version_learns_its_parent(bare: Shim) -> None:
    parent = bare.prefix.release("bad") / "parent"
    known = installed.InstallState(
        active="bad",
        releases=tuple(
            installed.InstalledRelease(id=name, parent=parent, version="", installed="")
            for name, parent in (("good", ""), ("bad", "good"))
        ),
    )
    parent.unlink()
    installed.note(bare.prefix, known)
    written = parent.stat()
    installed.note(bare.prefix, known)
    assert parent.stat() == written  # what is there is not written again
    bare.starts(*[time.time() - 1] * 9)
    assert bare.start() == "good"
    assert not (bare.prefix.release("good") / "parent").exists()


@pytest.mark.parametrize("shell", [shell for shell in ("dash", "bash") if shutil.which(shell)] or ["sh"])
@pytest.mark.parametrize("number", ["9" * 23, "9" * 9, "0", "x"])
def test_a_claim_that_no_shim_made_stops_nothing(bare: Shim, shell: str, number: str) -> None:
    bare.prefix.run.mkdir()
    (bare.prefix.run / f"claim.{number}").symlink_to("1 0")
    done = subprocess.run([shell, bare.prefix.shim], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (0, "bad\n"), done.stderr
    assert shim.holder(bare.prefix) != 1 or number == "9" * 9


@pytest.mark.parametrize("change", ["deploy", "no parent", "parent is gone", "no rights", "nonsense"])
def test_a_release_stays_where_it_must(bare: Shim, change: str) -> None:
    bare.starts(*[time.time() - 1] * 9)
    if change == "deploy":
        bare.prefix.journal.write_text("{}")
    elif change == "no parent":
        installed.name_parent(bare.prefix, "bad", "")
    elif change == "parent is gone":
        (bare.prefix.release("good") / "environment").unlink()
    elif change == "no rights":  # run/ is a file: nothing can be written there, by root neither
        (bare.prefix.run / "starts").unlink()
        bare.prefix.run.rmdir()
        bare.prefix.run.write_text("")
    else:
        (bare.prefix.run / "starts").write_text("bad x\n\n$(reboot) `id`\nbad 9999999999999999999999\n" * 9)
    assert [bare.start() for _ in range(3)] == ["bad"] * 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bad good",
        "bad good x",
        "bad good 1\nmore",
        "bad ../../etc 1",
        "bad other 1",
        "good bad 1",
        "bad good 99999999999999999999",
    ],
)
def test_a_fallback_that_the_state_does_not_confirm_is_ignored(bare: Shim, text: str) -> None:
    known = installed.InstallState(
        active="bad",
        releases=tuple(
            installed.InstalledRelease(id=name, parent=parent, version="", installed="")
            for name, parent in (("good", ""), ("bad", "good"), ("other", ""))
        ),
    )
    bare.prefix.run.mkdir()
    (bare.prefix.run / "fallback").write_text(text)
    assert crashloop.found(bare.prefix, known) is None
    (bare.prefix.run / "fallback").write_text("bad good 0")
    assert crashloop.found(bare.prefix, known) == installed.Fallback(
        bad="bad", parent="good", at="1970-01-01T00:00:00+00:00"
    )


def test_a_parent_that_is_a_path_is_never_started(bare: Shim) -> None:
    bare.prefix.run.mkdir()
    for parent in ("../releases/good", ".", "..", "/good", "go*d"):
        (bare.prefix.run / "fallback").write_text(f"bad {parent} 1\n")
        assert bare.start() == "bad"
