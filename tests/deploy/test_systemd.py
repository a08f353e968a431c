"""systemd as the manager: against an emulated systemctl, and inside of `systemd_machine` against the real one.

test_real_systemd.py runs these tests in there.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.processes import alive, ended
from toolchain.core.config import Config
from toolchain.core.console import Console
from toolchain.core.errors import (
    ConfigError,
    ManagerRefused,
    ManagerUnavailable,
    PreflightRefused,
    RolledBack,
    ServiceConflict,
)
from toolchain.deploy import installer, port
from toolchain.service import managers
from toolchain.service.manager import Definition
from toolchain.service.systemd import systemctl, unitfile
from toolchain.service.systemd.manager import SystemdManager
from toolchain.service.units.ollama import OllamaUnit

from . import systemctl_program
from .site import Site, identifier, install

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is on Linux")
REAL = os.environ.get("TURBOQUANT_REAL_SYSTEMD") == "yes"
_ROOT = os.geteuid() == 0
_names = itertools.count()


@pytest.fixture(autouse=True)
def _systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The systemctl that PATH leads to: this machine's own, or the emulated one with units and a runtime of its own."""
    if REAL:
        yield
        return
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/systemctl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{systemctl_program.__file__}" "$@"\n')
    program.chmod(0o755)
    (tmp_path / "runtime").mkdir()
    for name, value in {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "EMULATED_SYSTEMD": str(tmp_path / "systemd"),
        "EMULATED_SYSTEMD_OWNER": str(os.getpid()),
        "XDG_RUNTIME_DIR": str(tmp_path / "runtime"),
    }.items():
        monkeypatch.setenv(name, value)
    yield
    for file in (tmp_path / "systemd").glob("*/*.json"):
        keeper = json.loads(file.read_text())["keeper"]
        if json.loads(file.read_text())["active"] not in ("inactive", "failed"):
            os.kill(keeper, signal.SIGTERM)
            assert ended(keeper)


_DOMAINS = ["user", "system"] if REAL else ["system" if _ROOT else "user"]


@pytest.fixture(params=_DOMAINS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    units = "" if REAL else str(tmp_path / "systemd" / request.param / "units")
    place = Site.make(
        folder,
        service_manager="systemd",
        domain=request.param,
        user="root" if _ROOT else "",
        agents_dir=units,
        label=f"io.turboquant.test-{next(_names)}",
    )
    yield place
    found = manager(place)
    found.unload()
    shutil.rmtree(f"{found.file}.d", ignore_errors=True)
    found.delete()


def manager(site: Site) -> SystemdManager:
    found = managers.choose(site.config.deploy, site.prefix.folder)
    assert isinstance(found, SystemdManager)
    return found


def drop_in(site: Site, text: str) -> None:
    folder = Path(f"{manager(site).file}.d")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.conf").write_text(text)


def job(folder: Path, script: str = "exec sleep 1000") -> Definition:
    """A definition of a program whose path has what systemd, the shell and a unit file read in a special way."""
    program = folder / "a=%n $x \"q' \\x b & c { path=d ; argv[]=e ; ignore_errors=no }" / "program"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Definition(program=program, log=program.with_name("the log %t"))


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def left(site: Site) -> list[Path]:
    folder = manager(site).file.parent
    return [path for path in folder.rglob(f"*{site.config.deploy.label}*") if ".d/" not in f"{path}/"]


def _install(environment: dict[str, str], release: Path, config: Config, console: Console) -> object:
    """As `install`, in a process whose PATH leads to another systemctl."""
    os.environ.update(environment)
    return install(release, config, console)


@pytest.mark.slow
def test_install_upgrade_roll_back_and_uninstall(site: Site) -> None:
    a, b = site.release("a"), site.release("b")
    first = site.install(a)
    assert (first.active, first.healthy) == (identifier(a), True)
    second = site.install(b)
    assert (second.active, second.parent, second.healthy) == (identifier(b), identifier(a), True)
    assert ended(first.pid)
    assert site.install(b) == second  # the pid too: nothing was restarted
    site.assert_upgrade_survives(partial(_install, dict(os.environ)), site.release("c"), at="restart")
    back = installer.rollback(site.config, site.console)
    assert (back.active, back.healthy) == (identifier(b), True)
    os.kill(back.pid, signal.SIGKILL)
    assert len(left(site)) == 2  # the unit, and the link that enables it
    gone = installer.uninstall(site.config, site.console)
    assert (gone.reason, left(site)) == ("nothing is installed", [])


@pytest.mark.slow
@pytest.mark.parametrize(
    "site", _DOMAINS[-1:], indirect=True
)  # of what systemd does then, nothing depends on the domain
def test_a_crash_loop_at_the_install_and_afterwards(site: Site) -> None:
    drop_in(site, "[Service]\nRestartSec=0.1\n")  # so quick that the end before may have been forgotten
    old = site.install(site.release("old"))
    with pytest.raises(RolledBack, match=r"keeps exiting, last with: (3|no status)"):
        site.install(site.release("bad", does="exit"))
    new = site.install(site.release("new"))
    behaviour = site.prefix.release(new.active) / "lib/ollama/behaviour.json"
    behaviour.write_text(json.dumps(json.loads(behaviour.read_text()) | {"does": "exit"}))
    os.kill(new.pid, signal.SIGKILL)
    until((site.prefix.run / "fallback").exists)
    until(lambda: f"started {old.active}" in site.log().rpartition("kept exiting")[2])
    behaviour.write_text(json.dumps(json.loads(behaviour.read_text()) | {"does": "serve"}))
    after = site.status()
    assert (after.active, after.healthy) == (old.active, True)
    assert f"release {new.active} kept exiting; rolled back to {old.active}" in after.fallback


def test_a_unit_by_itself(site: Site, tmp_path: Path) -> None:
    unit = manager(site)
    definition = job(tmp_path, 'echo "$0 HOME=$HOME PATH=$PATH all: $(env | sort | tr "\\n" " ")"\nexec sleep 1000')
    unit.check()
    unit.preflight()
    assert left(site) == []
    unit.install(definition)
    assert unit.runs(unit.file) == str(definition.program)
    assert not unit.inspect().loaded
    unit.reload()
    state = unit.inspect()
    assert (state.loaded, state.runs, state.program) == (True, 1, str(definition.program))
    until(lambda: definition.log.exists() and definition.log.read_text().endswith("\n"))
    assert definition.log.read_text().startswith(
        f"{definition.program} HOME={unit.account and unit.account.home} PATH="
    )
    given = definition.log.read_text().partition("all: ")[2].split()
    assert {word.partition("=")[0] for word in given} <= {"HOME", "PATH", "PWD", "_", "SHLVL", "OLDPWD"}
    (place,) = unit.instances()
    assert place.manager.registration == unit.registration
    assert unit.find(definition.program) == unit.registration
    assert unit.doubt(unit.registration, definition.program) == ""
    assert "is not ours" in unit.doubt(unit.registration, tmp_path / "other")
    assert unit.restart()
    assert ended(state.pid)
    os.kill(unit.inspect().pid, signal.SIGKILL)
    until(lambda: unit.inspect().last_end == "Killed: 9")
    assert unit.restart()  # without waiting for RestartSec
    pid = unit.inspect().pid
    assert alive(pid)
    unit.install(replace(definition, log=definition.log.with_name("another log")))
    assert unit.look()["NeedDaemonReload"] == "yes"
    unit.restart()  # with the file as it is now
    assert unit.look()["NeedDaemonReload"] == "no"
    until(definition.log.with_name("another log").exists)
    pid = unit.inspect().pid
    unit.unload()
    assert ended(pid)
    assert not unit.inspect().loaded
    unit.unload()


@pytest.mark.slow
def test_a_service_named_as_the_preflight_stays(site: Site, tmp_path: Path) -> None:
    unit, other = manager(site), manager(site.configured(label=f"{site.config.deploy.label}.preflight"))
    left = unitfile.probe(unit.render(job(tmp_path)))
    unit.check()
    other.file.write_bytes(left)  # of a preflight that was killed
    unit.preflight()
    assert not other.file.exists()
    other.install(Definition(program=Path("/bin/true"), log=tmp_path / "log"))
    other.reload()
    try:
        unit.sweep()
        with pytest.raises(PreflightRefused, match=r"\.preflight\.service is another service's"):
            unit.preflight()
        assert other.inspect().loaded
    finally:
        other.unload()
        other.delete()


def test_a_program_that_ignores_sigterm_is_killed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unitfile, "STOP_S", 0.3)
    unit = manager(site)
    definition = job(tmp_path, "trap '' TERM\necho ready\nwhile :; do sleep 1000; done")
    unit.install(definition)
    unit.reload()
    until(lambda: definition.log.exists() and "ready" in definition.log.read_text())
    pid = unit.inspect().pid
    assert not unit.restart()
    assert ended(pid)
    assert unit.inspect().running


def test_a_unit_that_was_started_too_often_starts_again(site: Site, tmp_path: Path) -> None:
    drop_in(site, "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=2\n[Service]\nRestartSec=0.05\n")
    unit = manager(site)
    definition = job(tmp_path, "exit 3")
    unit.install(definition)
    unit.reload()
    assert "drop-ins change" in unit.caution
    until(lambda: unit.look()["ActiveState"] == "failed")
    assert unit.inspect().last_end == "3"
    definition.program.write_text("#!/bin/sh\nexec sleep 1000\n")
    unit.restart()
    until(lambda: unit.inspect().running)


def test_what_makes_the_unit_another_service_is_refused(site: Site, tmp_path: Path) -> None:
    unit = manager(site)
    definition = job(tmp_path)
    drop_in(site, "[Service]\nUser=nobody\n")  # before there is a unit
    with pytest.raises(ManagerRefused, match=r"the drop-in .*test.conf changes Service.User"):
        unit.check()
    shutil.rmtree(f"{unit.file}.d")
    unit.install(definition)
    unit.reload()
    drop_in(site, "[Service]\nExecStart=\nExecStart=/bin/sleep 1000\n")
    for act in (unit.check, unit.reload, unit.check):
        with pytest.raises(ManagerRefused, match=r"the drop-in .*test.conf changes Service.ExecStart"):
            act()
    unit.unload()
    shutil.rmtree(f"{unit.file}.d")
    unit.file.unlink()
    unit.file.symlink_to("/dev/null")
    for act in (unit.check, unit.reload, lambda: unit.install(definition)):
        with pytest.raises(ManagerRefused, match="is masked") as caught:
            act()
        assert "unmask" in caught.value.hint


def test_others_with_the_name_or_the_port(site: Site, tmp_path: Path) -> None:
    unit = manager(site)
    unit.file.parent.mkdir(parents=True, exist_ok=True)
    unit.file.write_text("[Service]\nType=simple\nExecStart=/bin/sleep 1000\n")
    with pytest.raises(ServiceConflict, match="runs /bin/sleep, not "):
        site.install(site.release("a"))
    assert unit.file.read_text().endswith("/bin/sleep 1000\n")
    unit.delete()
    ollama = unit.adopt(replace(unit.registration, label="ollama", file=str(unit.file.with_name("ollama.service"))))
    ollama.install(job(tmp_path))
    ollama.reload()
    try:
        config = replace(site.config.deploy, port=11434)
        with pytest.raises(ServiceConflict, match=r"Ollama's installer is loaded .*ollama.service, pid") as caught:
            port.check(unit, (), OllamaUnit().competitors, config, site.prefix)
        assert "systemctl stop ollama" in caught.value.hint
    finally:
        ollama.unload()
        ollama.delete()


def test_no_session(site: Site, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _no_session(site, tmp_path, patch)


def _no_session(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site.configured(domain="user")
    unit = manager(site)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    for act in (unit.inspect, unit.check, unit.preflight, lambda: site.install(site.release(f"a-{next(_names)}"))):
        with pytest.raises(
            ManagerUnavailable, match=r"has no user session: .*none does not exist .*connect to bus"
        ) as why:
            act()
        for remedy in (f"XDG_RUNTIME_DIR=/run/user/{os.getuid()}", "loginctl enable-linger", "deploy.domain=system"):
            assert remedy in why.value.hint
    assert not site.prefix.current.exists()
    assert left(site) == []


def test_no_systemctl(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = manager(site)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "nothing"))
        with pytest.raises(ManagerUnavailable, match="systemctl is not installed"):
            unit.inspect()


def test_an_answer_that_states_nothing_is_no_answer(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = manager(site)
    (tmp_path / "other").mkdir()
    program = tmp_path / "other/systemctl"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        for script in ("exit 0", r"printf '\377\001=x\nActiveState\n'", "echo ActiveState=inactive"):
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
            for act in (unit.inspect, unit.instances, unit.check, unit.unload):
                with pytest.raises(ManagerUnavailable, match=r"show .* does not state what it was asked for"):
                    act()


def test_a_systemctl_that_hangs_is_named(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = manager(site)
    program = tmp_path / "hangs/systemctl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(systemctl, "_CALL_TIMEOUT_S", 0.2)
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        with pytest.raises(ManagerUnavailable, match=r"\.service: the state .* is unknown: .* time limit") as caught:
            unit.inspect()
        assert caught.value.hint


@pytest.mark.skipif(REAL, reason="systemd itself is not broken")
def test_a_daemon_reload_that_fails_leaves_nothing(site: Site, tmp_path: Path) -> None:
    unit = manager(site)
    unit.check()
    (tmp_path / "systemd/broken").touch()
    with pytest.raises(PreflightRefused, match="not enough space available on /run/systemd"):
        site.install(site.release("a"))
    assert left(site) == []
    assert not site.prefix.current.exists()
    (tmp_path / "systemd/broken").unlink()


def test_domains(site: Site) -> None:
    for domain, reason in (("gui/501", "is launchd's"),):
        with pytest.raises(ConfigError, match=reason):
            manager(site.configured(domain=domain))
    uid = os.getuid()
    assert manager(site.configured(domain="user")).domain == f"user/{uid}"
    assert manager(site.configured(domain=f"user/{uid}")).domain == f"user/{uid}"
    assert manager(site.configured(domain="auto")).domain == ("system" if _ROOT else f"user/{uid}")
    former = managers.choose(site.configured(domain="auto").config.deploy, site.folder, loaded_in=f"gui/{uid}")
    assert former.registration.domain == ("system" if _ROOT else f"user/{uid}")
    elsewhere = site.configured(agents_dir=str(site.folder))
    with pytest.raises(ConfigError, match="reads no units in"):
        manager(elsewhere).check()
    if REAL:
        with pytest.raises(ConfigError, match="the folder of the unit, is not writable"):
            manager(site.configured(agents_dir="/usr/lib/systemd/system")).check()


def test_a_unit_of_an_earlier_version_is_ours() -> None:
    """The script was another one: what is installed must not become foreign to the version that replaces it."""
    earlier = 'exec /usr/bin/env -i "HOME=$HOME" "PATH=$PATH" "$1" >>"$3" 2>&1'
    path = "/a = b 2>&1 sh/shim"
    assert unitfile.runs([f'":/bin/sh" "-c" \'{earlier}\' "sh" "{path}" ">>" "/a/log"']) == path
    argv = f"/bin/sh -c {earlier} sh {path} >> /a/log"
    assert unitfile.runs_loaded(f"{{ path=/bin/sh ; argv[]={argv} ; ignore_errors=no ; pid=0 }}") == path
    assert unitfile.runs(["/bin/sh -c 'exec ollama' sh /a/shim >> /a/log"]) == "/bin/sh"
