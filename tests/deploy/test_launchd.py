"""The launchctl driver against the emulator, with the refusals and races that launchd is known for."""

from __future__ import annotations

import os
import plistlib
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.processes import alive, ended
from toolchain.core import records
from toolchain.core.errors import ConfigError, ManagerRefused, ManagerUnavailable, PortInUse, ServiceConflict
from toolchain.deploy import installed, installer, port
from toolchain.host import ports
from toolchain.service import account, launchd, managers
from toolchain.service.emulator import settings
from toolchain.service.launchd import LaunchdManager
from toolchain.service.manager import Definition
from toolchain.service.units.ollama import OllamaUnit
from toolchain.serving.ollama import DEFAULT_PORT

from .site import Site, free_port

pytestmark = pytest.mark.slow

GUI, USER = f"gui/{os.getuid()}", f"user/{os.getuid()}"


@pytest.fixture
def sleeper(site: Site) -> LaunchdManager:
    """A service of the site whose job sleeps, with its plist written."""
    return _sleeper(_driver(site))


def _driver(site: Site, loaded_in: str = "") -> LaunchdManager:
    found = managers.choose(site.config.deploy, site.prefix.folder, loaded_in=loaded_in)
    assert isinstance(found, LaunchdManager)
    return found


def _sleeper(found: LaunchdManager, *program: str) -> LaunchdManager:
    words = program or ("/bin/sh", "-c", "exec sleep 1000")
    content = {"Label": found.label, "RunAtLoad": True, "ProgramArguments": list(words)}
    records.write_bytes(found.plist, plistlib.dumps(content), mode=0o644)
    return found


def _slow_teardown(site: Site, seconds: float) -> None:
    settings.write(site.emulator, settings.Settings(owner_pid=os.getpid(), bootout_delay_s=seconds))


def test_reload_outwaits_the_bootout_race(site: Site, sleeper: LaunchdManager) -> None:
    _slow_teardown(site, 0.7)
    pids = set()
    for _ in range(3):
        sleeper.reload()
        pids.add(sleeper.inspect().pid)
    assert len(pids - {0}) == 3
    assert [alive(pid) for pid in sorted(pids)].count(True) == 1


def test_restart_keeps_the_job_loaded_and_loads_an_unknown_one(sleeper: LaunchdManager) -> None:
    sleeper.restart()
    first = sleeper.inspect()
    assert first.loaded
    sleeper.restart()
    second = sleeper.inspect()
    assert second.pid not in (0, first.pid)
    assert second.runs == first.runs + 1


def test_a_disabled_service_is_enabled_again(site: Site, sleeper: LaunchdManager) -> None:
    sleeper.reload()
    site.launchctl("disable", sleeper.target)
    sleeper.restart()
    assert sleeper.inspect().running


def test_unload_returns_when_the_label_is_gone_and_is_harmless_twice(site: Site, sleeper: LaunchdManager) -> None:
    sleeper.reload()
    _slow_teardown(site, 0.5)
    sleeper.unload()
    assert not sleeper.inspect().loaded
    sleeper.unload()


def test_a_label_that_never_goes_is_an_error_with_a_bound(
    site: Site, sleeper: LaunchdManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper.reload()
    _slow_teardown(site, 1)
    monkeypatch.setattr(launchd, "TEARDOWN_TIMEOUT_S", 0.3)
    with pytest.raises(ManagerRefused, match="still loaded"):
        sleeper.unload()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda plist: plist.chmod(0o666), "122, Path had bad ownership"),
        (lambda plist: plist.write_text("<plist>"), "5, Input/output error"),
        (lambda plist: plist.unlink(), "5, Input/output error"),
    ],
)
def test_a_plist_that_launchd_refuses(
    sleeper: LaunchdManager, break_it: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(break_it)
    break_it(sleeper.plist)
    monkeypatch.setattr(launchd, "BOOTSTRAP_TIMEOUT_S", 0.2)
    with pytest.raises(ManagerRefused, match=message) as caught:
        sleeper.reload()
    assert caught.value.hint


def test_a_domain_that_is_absent_is_not_a_stopped_service(sleeper: LaunchdManager) -> None:
    with pytest.raises(ManagerUnavailable, match="state of the service is unknown"):
        replace(sleeper, domain="gui/999999").inspect()
    with pytest.raises(ManagerRefused, match=r"112|125"):
        replace(sleeper, domain="gui/999999").reload()


def test_the_automatic_domain_follows_the_login_and_then_stays(site: Site) -> None:
    assert _driver(site).domain == GUI
    settings.write(site.emulator, settings.Settings(owner_pid=os.getpid(), domains=(USER, "system")))
    assert _driver(site).domain == USER
    assert _driver(site, loaded_in=GUI).domain == GUI
    assert _driver(site.configured(domain="system")).domain == "system"


def test_a_service_that_answers_is_never_said_to_be_away(site: Site) -> None:
    pid = site.install(site.release("1")).pid
    assert installed.read(site.prefix).domain == GUI
    settings.write(site.emulator, settings.Settings(owner_pid=os.getpid(), domains=(USER, "system")))
    told = f"pid {pid} serves port {site.config.deploy.port} from .* loaded in no place that can be asked"
    assert re.match(told, site.status().reason)
    with pytest.raises(ManagerUnavailable, match=told) as caught:
        site.install(site.release("2"))
    assert f"kill {pid}" in caught.value.hint
    with pytest.raises(ManagerUnavailable, match=told):
        installer.uninstall(site.config, site.console)
    settings.write(site.emulator, settings.Settings(owner_pid=os.getpid(), domains=("gui/999999",)))
    with pytest.raises(ManagerUnavailable, match="the state of the service is unknown"):
        site.status()
    settings.write(site.emulator, settings.Settings(owner_pid=os.getpid()))
    assert site.status().reason == "nothing is installed"  # the uninstall was finished
    assert ended(pid)


@pytest.mark.parametrize("label", ["com.ollama.ollama", "homebrew.mxcl.ollama"])
def test_another_ollama_service_on_the_same_port(site: Site, label: str) -> None:
    ours = _driver(site)
    _sleeper(replace(ours, label=label, plist=site.folder / f"{label}.plist")).reload()
    with pytest.raises(ServiceConflict, match=f"{label}, pid \\d+") as caught:
        port.check(ours, (), OllamaUnit.competitors, site.configured(port=DEFAULT_PORT).config.deploy, site.prefix)
    assert "deploy.port" in caught.value.hint
    port.check(ours, (), OllamaUnit.competitors, site.config.deploy, site.prefix)  # on another port there is no fight


def test_a_port_that_a_program_holds_is_named_with_it(site: Site) -> None:
    release = site.release("1")
    ours = _driver(site)
    program = "import socket,sys,time; s=socket.create_server((sys.argv[1], int(sys.argv[2]))); time.sleep(1000)"
    other = replace(ours, label="squatter", plist=site.folder / "squatter.plist")
    number = site.config.deploy.port
    _sleeper(other, sys.executable, "-c", program, "127.0.0.1", str(number))
    other.reload()
    pid = other.inspect().pid
    deadline = time.monotonic() + 10
    while pid not in ports.listeners(number):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(PortInUse, match=f"port {number} is taken by pid {pid} ") as caught:
        site.install(release)
    assert "deploy.port" in caught.value.hint
    assert not site.prefix.releases.exists()
    other.unload()
    assert site.install(release).healthy
    moved = site.configured(port=free_port())
    assert moved.install(release).healthy  # our own listener on the old port is no conflict, nor on the new one
    assert moved.install(site.release("2")).healthy
    assert installer.rollback(moved.config, moved.console).healthy


def test_launchd_is_asked_for_only_where_it_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    mac = site.configured(service_manager="launchd", domain=GUI, user=account.caller().name)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(ConfigError, match="only on macOS"):
        _driver(mac)
    monkeypatch.setattr(sys, "platform", "darwin")
    found = _driver(mac)
    assert found.command == ("/bin/launchctl",)
    assert found.plist == Path.home() / "Library/LaunchAgents/io.turboquant.ollama.plist"
    assert _driver(mac.configured(agents_dir="~/agents")).plist.parent == Path.home() / "agents"
    monkeypatch.setattr(account, "is_root", lambda: False)
    daemon = _driver(mac.configured(domain="system"))  # everybody may look at it
    for change in (daemon.check, daemon.require_rights):
        with pytest.raises(ConfigError, match="needs root"):
            change()
    monkeypatch.setattr(account, "is_root", lambda: True)
    system = _driver(mac.configured(domain="system", user="daemon"))
    assert system.plist.parent == Path("/Library/LaunchDaemons")
    assert b"<key>UserName</key>" in system.render(Definition(program=site.prefix.shim, log=site.log_file))
