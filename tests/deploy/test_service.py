"""The launchctl driver against the stand-in, with the refusals and races that launchd is known for."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.processes import alive
from toolchain.core.errors import ConfigError, DomainUnavailable, LaunchdRefused, PortInUse, ServiceConflict
from toolchain.deploy import conflicts, installer, service, state
from toolchain.deploy.service import Service
from toolchain.host import ports
from toolchain.standin import settings

from .site import Site, free_port

pytestmark = pytest.mark.slow

GUI, USER = f"gui/{os.getuid()}", f"user/{os.getuid()}"


@pytest.fixture
def sleeper(site: Site) -> Service:
    """A service of the site whose job sleeps, with its plist written."""
    return _sleeper(service.of(site.config, site.layout))


def _sleeper(found: Service, program: str = "exec sleep 1000") -> Service:
    found.write_plist(
        f"""<?xml version="1.0" encoding="UTF-8"?><plist version="1.0"><dict>
        <key>Label</key><string>{found.label}</string><key>RunAtLoad</key><true/>
        <key>ProgramArguments</key><array><string>/bin/sh</string><string>-c</string><string>{program}</string></array>
        </dict></plist>""".encode()
    )
    return found


def _slow_teardown(site: Site, seconds: float) -> None:
    settings.write(site.layout.standin, settings.Settings(owner_pid=os.getpid(), bootout_delay_s=seconds))


def test_reload_outwaits_the_bootout_race(site: Site, sleeper: Service) -> None:
    _slow_teardown(site, 0.7)
    pids = set()
    for _ in range(3):
        sleeper.reload()
        pids.add(sleeper.inspect().pid)
    assert len(pids - {0}) == 3
    assert [alive(pid) for pid in sorted(pids)].count(True) == 1


def test_restart_keeps_the_job_loaded_and_loads_an_unknown_one(sleeper: Service) -> None:
    sleeper.restart()
    first = sleeper.inspect()
    assert first.loaded
    sleeper.restart()
    second = sleeper.inspect()
    assert second.pid not in (0, first.pid)
    assert second.runs == first.runs + 1


def test_a_disabled_service_is_enabled_again(site: Site, sleeper: Service) -> None:
    sleeper.reload()
    site.launchctl("disable", sleeper.target)
    sleeper.restart()
    assert sleeper.inspect().running


def test_unload_returns_when_the_label_is_gone_and_is_harmless_twice(site: Site, sleeper: Service) -> None:
    sleeper.reload()
    _slow_teardown(site, 0.5)
    sleeper.unload()
    assert not sleeper.inspect().loaded
    sleeper.unload()


def test_a_label_that_never_goes_is_an_error_with_a_bound(
    site: Site, sleeper: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper.reload()
    _slow_teardown(site, 1)
    monkeypatch.setattr(service, "TEARDOWN_TIMEOUT_S", 0.3)
    with pytest.raises(LaunchdRefused, match="still loaded"):
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
    sleeper: Service, break_it: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(break_it)
    break_it(sleeper.plist)
    monkeypatch.setattr(service, "BOOTSTRAP_TIMEOUT_S", 0.2)
    with pytest.raises(LaunchdRefused, match=message) as caught:
        sleeper.reload()
    assert caught.value.hint


def test_a_domain_that_is_absent_is_not_a_stopped_service(sleeper: Service) -> None:
    with pytest.raises(DomainUnavailable, match="cannot tell"):
        replace(sleeper, domain="gui/999999").inspect()
    with pytest.raises(LaunchdRefused, match=r"112|125"):
        replace(sleeper, domain="gui/999999").reload()


def test_the_automatic_domain_follows_the_login_and_then_stays(site: Site) -> None:
    standin = site.layout.standin
    assert service.of(site.config, site.layout).domain == GUI
    settings.write(standin, settings.Settings(owner_pid=os.getpid(), domains=(USER, "system")))
    assert service.of(site.config, site.layout).domain == USER
    assert service.of(site.config, site.layout, loaded_in=GUI).domain == GUI
    assert service.of(site.configured(domain="system").config, site.layout).domain == "system"


def test_status_over_ssh_says_that_it_cannot_tell(site: Site) -> None:
    site.install(site.release("1"))
    assert state.read(site.layout).domain == GUI
    settings.write(site.layout.standin, settings.Settings(owner_pid=os.getpid(), domains=(USER, "system")))
    with pytest.raises(DomainUnavailable, match="cannot tell whether the service runs"):
        site.status()


@pytest.mark.parametrize("label", ["com.ollama.ollama", "homebrew.mxcl.ollama"])
def test_another_ollama_service_on_the_same_port(site: Site, label: str) -> None:
    ours = service.of(site.config, site.layout)
    _sleeper(replace(ours, label=label, plist=site.folder / f"{label}.plist")).reload()
    with pytest.raises(ServiceConflict, match=f"{label}, pid \\d+") as caught:
        conflicts.check(ours, None, site.configured(port=ports.OLLAMA_PORT).config.deploy)
    assert "deploy.port" in caught.value.hint
    conflicts.check(ours, None, site.config.deploy)  # on another port there is no fight


def test_a_port_that_a_program_holds_is_named_with_it(site: Site) -> None:
    release = site.release("1")
    ours = service.of(site.config, site.layout)
    program = "import socket,time; s=socket.create_server((sys.argv[1], int(sys.argv[2]))); time.sleep(1000)"
    other = replace(ours, label="squatter", plist=site.folder / "squatter.plist")
    port = str(site.config.deploy.port)
    other.write_plist(
        f"""<?xml version="1.0" encoding="UTF-8"?><plist version="1.0"><dict><key>Label</key><string>squatter</string>
        <key>RunAtLoad</key><true/><key>ProgramArguments</key><array><string>{sys.executable}</string>
        <string>-c</string><string>import sys,{program.removeprefix("import ")}</string><string>127.0.0.1</string>
        <string>{port}</string></array></dict></plist>""".encode()
    )
    other.reload()
    pid = other.inspect().pid
    deadline = time.monotonic() + 10
    while pid not in ports.listeners(int(port)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(PortInUse, match=f"port {port} is taken by pid {pid} ") as caught:
        site.install(release)
    assert "deploy.port" in caught.value.hint
    assert not site.layout.releases.exists()
    other.unload()
    assert site.install(release).healthy
    moved = site.configured(port=free_port())
    assert moved.install(release).healthy  # our own listener on the old port is no conflict, nor on the new one
    assert moved.install(site.release("2")).healthy
    assert installer.rollback(moved.config, moved.console).healthy


def test_launchd_is_asked_for_only_where_it_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    launchd = site.configured(service_manager="launchd", domain="gui/501")
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(ConfigError, match="only on macOS"):
        service.of(launchd.config, site.layout)
    monkeypatch.setattr(sys, "platform", "darwin")
    found = service.of(launchd.config, site.layout)
    assert found.command == ("/bin/launchctl",)
    assert found.plist == Path.home() / "Library/LaunchAgents/io.turboquant.ollama.plist"
    assert (
        service.of(launchd.configured(agents_dir="~/agents").config, site.layout).plist.parent == Path.home() / "agents"
    )
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    with pytest.raises(ConfigError, match="needs root"):
        service.of(launchd.configured(domain="system").config, site.layout)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    system = service.of(launchd.configured(domain="system").config, site.layout)
    assert system.plist.parent == Path("/Library/LaunchDaemons")
    assert b"<key>UserName</key>" in service.render_plist(system, site.layout)
