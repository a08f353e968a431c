"""Where a service may be put: the preflight, the port's other listeners, and another manager than before."""

from __future__ import annotations

import os
import plistlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.processes import ended
from toolchain import pipeline
from toolchain.core import records
from toolchain.core.errors import PortInUse, PreflightRefused, ServiceConflict
from toolchain.core.run import Run
from toolchain.deploy import installed, installer, port
from toolchain.host import ports
from toolchain.service import managers
from toolchain.service.emulator import settings
from toolchain.service.emulator.verbs import LOGIN_VERB, LOGOUT_VERB
from toolchain.service.launchd import LaunchdManager

from . import process_manager
from .process_manager import KIND, ProcessManager
from .site import Site, free_port, identifier

pytestmark = pytest.mark.slow

UID = os.getuid()
GUI, USER = f"gui/{UID}", f"user/{UID}"


def _manager(site: Site) -> LaunchdManager:
    found = managers.choose(site.config.deploy, site.prefix.folder)
    assert isinstance(found, LaunchdManager)
    return found


def _left(site: Site) -> list[str]:
    """What is left of preflights: files and labels."""
    files = [path.name for path in site.emulator.rglob("*.preflight.plist")]
    domains = [one for one in (GUI, USER, "system") if "preflight" in site.launchctl("print", one).stdout]
    return files + domains


def _until_swept(site: Site) -> None:
    deadline = time.monotonic() + 10
    while left := _left(site):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_a_preflight_leaves_nothing_and_can_be_repeated_at_once(site: Site) -> None:
    begun = time.monotonic()
    for _ in range(3):
        installer.preflight(site.config, site.console)
    assert time.monotonic() - begun < 6
    _until_swept(site)
    assert not site.prefix.releases.exists()


@pytest.mark.parametrize("absent", [112, 125])
def test_a_refusal_ends_before_anything_is_made(site: Site, absent: int) -> None:
    settings.write(site.emulator, settings.Settings(owner_pid=os.getpid(), absent_code=absent))
    site.launchctl(LOGOUT_VERB, str(UID))
    there = site.configured(domain=GUI)
    with pytest.raises(PreflightRefused) as caught:
        installer.preflight(there.config, there.console)
    assert (caught.value.exit_code, caught.value.code) == (57, 125)
    assert "user/UID" in caught.value.hint
    assert "gui/" not in caught.value.hint
    with pytest.raises(PreflightRefused):
        there.install(site.release("1"))
    assert not site.prefix.releases.exists()
    assert _left(site) == []


def test_ship_asks_launchd_before_it_fetches_or_builds(site: Site) -> None:
    site.launchctl(LOGOUT_VERB, str(UID))
    there = site.configured(domain=GUI)
    with pytest.raises(PreflightRefused):
        pipeline.ship(Run(replace(there.config, workspace=str(site.folder / "workspace")), there.console))
    assert not (site.folder / "workspace").exists()


def test_a_killed_preflight_is_swept(site: Site) -> None:
    manager = _manager(site)
    probe = replace(manager, label=f"{manager.label}.preflight", plist=manager.plist.with_name("x.preflight.plist"))
    content = {"Label": probe.label, "ProgramArguments": ["/bin/sh", "-c", ":"], "RunAtLoad": True}
    probe.plist.parent.mkdir(parents=True, exist_ok=True)
    records.write_bytes(probe.plist, plistlib.dumps(content), mode=0o644)
    probe.load()
    assert _left(site) == ["x.preflight.plist", GUI]
    installer.preflight(site.config, site.console)
    _until_swept(site)
    probe.plist.write_bytes(plistlib.dumps(content))
    installer.uninstall(site.config, site.console)
    assert _left(site) == []


def test_a_service_with_the_name_of_the_preflight_stays(site: Site) -> None:
    file = _manager(site).plist.with_name(f"{site.config.deploy.label}.preflight.plist")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(
        plistlib.dumps({"Label": file.stem, "ProgramArguments": ["/bin/sleep", "1000"], "RunAtLoad": True})
    )
    file.chmod(0o644)
    assert site.launchctl("bootstrap", GUI, str(file)).returncode == 0
    with pytest.raises(PreflightRefused, match=r"preflight\.plist is another service's"):
        site.install(site.release("1"))
    assert _left(site) == [file.name, GUI]


def test_a_preflight_that_is_killed_anywhere(site: Site) -> None:
    ends = set()
    for delay in (0.02, 0.1, 0.2, 0.3):  # a fast machine has ended by the last
        with site.child(_preflight, site.config) as child:
            time.sleep(delay)
            child.kill()
            child.join()
            ends.add(child.exitcode)
    assert -signal.SIGKILL in ends
    assert site.install(site.release("1")).healthy
    _until_swept(site)


def _preflight(config: object, console: object) -> None:
    installer.preflight(config, console)  # type: ignore[arg-type]


def test_an_upgrade_of_what_is_loaded_needs_no_preflight(site: Site) -> None:
    site.install(site.release("1"))
    mark = site.emulator / "LaunchAgents" / "io.turboquant.ollama.preflight.plist"  # a preflight would sweep it away
    mark.write_bytes(plistlib.dumps({"Label": mark.stem}))
    assert site.install(site.release("2")).healthy
    assert mark.exists()
    assert site.configured(label="io.turboquant.other").install(site.release("3")).healthy


@contextmanager
def _listening(host: str, number: int) -> Iterator[int]:
    program = "import socket,sys,time; s=socket.create_server((sys.argv[1], int(sys.argv[2])), family=int(sys.argv[3]))"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    words = [sys.executable, "-c", f"{program}; time.sleep(1000)", host, str(number), str(int(family))]
    with subprocess.Popen(words) as process:
        deadline = time.monotonic() + 10
        while process.pid not in ports.listeners(number):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process.pid
        process.kill()


@pytest.mark.parametrize(
    ("theirs", "ours", "taken"),
    [
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "127.0.0.1", True),
        ("::", "[::1]", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("0.0.0.0", "::1", False),
    ],
)
def test_whose_listener_takes_our_address(site: Site, theirs: str, ours: str, taken: bool) -> None:
    number = free_port()
    here = site.configured(host=ours, port=number)
    with _listening(theirs, number) as pid:
        if not taken:
            port.check(_manager(here), (), (), here.config.deploy, here.prefix)
            return
        with pytest.raises(PortInUse, match=f"taken by pid {pid} "):
            port.check(_manager(here), (), (), here.config.deploy, here.prefix)


def test_a_listener_whose_process_cannot_be_seen(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another user's on macOS, on the wildcard: there a bind beside it succeeds."""
    monkeypatch.setattr(port, "listeners", lambda *_: ())
    with closing(socket.create_server(("0.0.0.0", 0))) as other:
        here = site.configured(port=other.getsockname()[1])
        with pytest.raises(PortInUse, match="another user"):
            port.check(_manager(here), (), (), here.config.deploy, here.prefix)


def test_another_manager_takes_the_service_over(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(managers.MANAGERS, KIND, managers.Kind(process_manager.make))
    monkeypatch.setenv("PYTEST_OWNER_PID", str(os.getpid()))
    release = site.release("1")
    first = site.install(release)
    assert installed.read(site.prefix).manager == "emulator"
    other = site.configured(service_manager=KIND)
    try:
        seen = other.status()
        assert (seen.service, seen.pid, seen.healthy) == (first.service, first.pid, True)
        second = other.install(release)
        assert (second.healthy, second.also) == (True, ())
        assert ended(first.pid)
        assert site.launchctl("print", first.service).returncode == 113
        assert not list((site.emulator / "LaunchAgents").iterdir())
        back = site.install(release)
        assert (back.healthy, back.service, back.also) == (True, first.service, ())
        assert ended(second.pid)
        assert other.install(release).healthy
        assert installer.uninstall(site.config, site.console).reason == "nothing is installed"
    finally:
        ProcessManager(site.prefix.folder / KIND, site.config.deploy.label).unload()


def test_a_plist_under_another_name_is_found_and_deleted(site: Site) -> None:
    pid = site.install(site.release("1")).pid
    folder = site.emulator / "LaunchAgents"
    (folder / "io.turboquant.ollama.plist").rename(folder / "renamed.plist")
    (folder / "other.plist").write_bytes(plistlib.dumps({"Label": "other"}))
    (folder / "broken.plist").write_text("<plist>")
    site.launchctl(LOGOUT_VERB, str(UID))
    site.launchctl(LOGIN_VERB, str(UID))
    assert ended(pid)
    site.until(lambda: site.status().healthy)  # it has just been started
    installer.uninstall(site.config, site.console)
    assert sorted(path.name for path in folder.iterdir()) == ["broken.plist", "other.plist"]


def test_a_look_at_nothing_makes_nothing(tmp_path: Path) -> None:
    site = Site.make(tmp_path)
    away = site.configured(prefix=str(tmp_path / "never"))
    assert away.status().reason == "nothing is installed"
    assert not (tmp_path / "never").exists()


def _foreign(site: Site, *, loaded: bool) -> Path:
    """Somebody's job of our label that sleeps."""
    file = _manager(site).plist
    content = {"Label": file.stem, "RunAtLoad": True, "KeepAlive": True, "ProgramArguments": ["/bin/sleep", "1000"]}
    records.write_bytes(file, plistlib.dumps(content), mode=0o644)
    if loaded:
        assert site.launchctl("bootstrap", GUI, str(file)).returncode == 0
    return file


@pytest.mark.parametrize("loaded", [True, False])
def test_a_service_of_our_label_that_runs_something_else_is_left_alone(site: Site, loaded: bool) -> None:
    file = _foreign(site, loaded=loaded)
    content, named = file.read_bytes(), f"{GUI}/{file.stem} is loaded and runs /bin/sleep" if loaded else str(file)
    for refused in (lambda: site.install(site.release("1")), lambda: installer.preflight(site.config, site.console)):
        with pytest.raises(ServiceConflict) as caught:
            refused()
        assert named in caught.value.message
        assert "deploy.label" in caught.value.hint
    assert not site.prefix.releases.exists()
    told = [site.status().reason, installer.uninstall(site.config, site.console).reason]
    assert all(re.fullmatch(f"nothing is installed; {named}.* left alone", one) for one in told), told
    assert file.read_bytes() == content
    assert (site.launchctl("print", f"{GUI}/{file.stem}").returncode == 0) is loaded


def test_another_prefix_neither_takes_nor_removes_the_service(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    pid = site.install(site.release("1")).pid
    there = site.folder / "other prefix"
    there.mkdir()
    (there / "launchd").symlink_to(site.emulator)
    other = site.configured(prefix=str(there), port=free_port())
    release = site.release("2")
    with pytest.raises(ServiceConflict, match=f"runs {site.prefix.shim}, not {other.prefix.shim}") as caught:
        other.install(release)
    assert f"deploy.prefix='{site.prefix.folder}' deploy.uninstall" in caught.value.hint
    assert str(site.prefix.shim) in installer.uninstall(other.config, other.console).reason
    assert (site.status().pid, site.status().healthy, site.status().reason) == (pid, True, "")
    beside = other.configured(label="io.turboquant.other")
    assert beside.install(release).healthy
    capfd.readouterr()
    mistaken = other.status()  # with the label of the first one
    assert (mistaken.service, mistaken.also, mistaken.healthy) == (f"{GUI}/io.turboquant.other", (), True)
    assert f"runs {site.prefix.shim}, which is not of this prefix and is left alone" in capfd.readouterr().err
    with pytest.raises(ServiceConflict):
        installer.rollback(other.config, other.console, identifier(release))
    installer.uninstall(other.config, other.console)
    assert site.launchctl("print", f"{GUI}/io.turboquant.other").returncode == 113
    assert (site.status().pid, site.status().healthy) == (pid, True)


def test_a_link_to_the_prefix_is_the_same_prefix(site: Site) -> None:
    site.install(site.release("1"))
    (site.folder / "link").symlink_to(site.prefix.folder)
    linked = site.configured(prefix=str(site.folder / "link"))
    assert linked.status().healthy
    assert linked.install(site.release("2")).healthy
    assert installer.uninstall(site.config, site.console).reason == "nothing is installed"


def test_a_folder_of_property_lists_that_is_configured_no_more(site: Site, tmp_path: Path) -> None:
    before = site.configured(agents_dir=str(tmp_path / "agents"), label="com.example.before")
    before.install(before.release("1"))
    assert site.install(site.release("2")).healthy
    assert not list((tmp_path / "agents").iterdir())
    assert "com.example.before" not in site.launchctl("print", f"gui/{os.getuid()}").stdout
    moved = site.configured(agents_dir=str(tmp_path / "agents"), label="com.example.before")
    assert moved.install(moved.release("3")).healthy
    assert installer.uninstall(site.config, site.console).reason == "nothing is installed"
    assert not list((tmp_path / "agents").iterdir())
    assert "com.example.before" not in site.launchctl("print", f"gui/{os.getuid()}").stdout
