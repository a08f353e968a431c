"""Restarting and loading with launchctl's verbs: what a process is told, and what a refusal says."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import pytest

from tests.processes import alive
from toolchain.core import records
from toolchain.core.errors import ManagerRefused
from toolchain.service import launchctl_codes as codes
from toolchain.service import managers, propertylist
from toolchain.service.emulator import settings
from toolchain.service.launchd import LaunchdManager
from toolchain.service.manager import Definition

from .site import Site, await_file

pytestmark = pytest.mark.slow

USER = f"user/{os.getuid()}"


def _set(site: Site, **changes: Any) -> None:
    settings.write(site.emulator, settings.Settings(owner_pid=os.getpid(), bootout_delay_s=0, **changes))


def _script(site: Site, text: str, **changes: Any) -> LaunchdManager:
    """A service of the site that runs a shell script, with the property list that the driver writes."""
    found = managers.choose(site.configured(**changes).config.deploy, site.prefix.folder)
    assert isinstance(found, LaunchdManager)
    program = site.folder / "program"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    found.install(Definition(program=program, log=site.folder / "log"))
    return found


def _running(site: Site, setup: str) -> LaunchdManager:
    """A service that runs for ever after its script's `setup`, which is done."""
    ready = site.folder / "ready"
    service = _script(site, f"{setup}; touch {ready}; while :; do sleep 0.02; done")
    service.reload()
    await_file(ready)
    return service


def test_a_restart_lets_the_process_end_by_itself_and_does_not_wait_for_the_throttle(site: Site) -> None:
    _set(site)  # a throttle of 10 s
    bye = site.folder / "bye"
    service = _running(site, f"trap 'echo $$ >> {bye}; exit 0' TERM")
    first, begun = service.inspect(), time.monotonic()
    assert service.restart() is True
    assert time.monotonic() - begun < propertylist.THROTTLE_S / 2
    second = service.inspect()
    assert bye.read_text().split() == [str(first.pid)]
    assert (second.runs, second.last_end) == (2, "0")
    assert not alive(first.pid)


def test_a_process_that_ignores_sigterm_is_killed_after_its_exit_timeout(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propertylist, "EXIT_TIMEOUT_S", 1)
    _set(site)
    service = _running(site, "trap '' TERM")
    first, begun = service.inspect(), time.monotonic()
    assert service.restart() is False
    assert time.monotonic() - begun >= 1
    assert "Killed: 9" in service.inspect().last_end
    assert not alive(first.pid)
    assert service.inspect().running


@pytest.mark.parametrize("code", sorted(codes.PROGRESSING))
def test_a_start_in_progress_is_awaited(site: Site, code: int) -> None:
    _set(site, kickstart_code=code)
    service = _script(site, "exec sleep 1000")
    service.reload()
    first = service.inspect()
    assert service.restart() is True
    second = service.inspect()
    assert (second.runs, second.pid == first.pid, second.running) == (2, False, True)


def test_the_plist_of_the_driver_is_for_every_session_and_one_without_them_is_refused(site: Site) -> None:
    _set(site)
    service = _script(site, "exec sleep 1000", domain=USER)
    service.reload()
    assert service.inspect().running
    service.unload()
    records.write_bytes(service.plist, service.plist.read_bytes().replace(b"LimitLoadTo", b"Unknown"), mode=0o644)
    with pytest.raises(ManagerRefused, match="134, Service cannot load in this session type") as caught:
        service.reload()
    assert caught.value.code == codes.WRONG_SESSION
    assert "plist is for Aqua" in caught.value.hint
    assert "user/" not in caught.value.hint.partition(";")[2]  # not the domain that failed
    assert "deploy.domain to system" in caught.value.hint


@pytest.mark.parametrize("code", [codes.DOMAIN_ABSENT, codes.WRONG_DOMAIN])
@pytest.mark.parametrize(("domain", "never"), [("gui/999999", "gui/"), ("user/999999", "user/")])
def test_a_hint_does_not_advise_the_domain_that_failed(site: Site, code: int, domain: str, never: str) -> None:
    _set(site, absent_code=code)
    service = replace(_script(site, "exec sleep 1000"), domain=domain)
    with pytest.raises(ManagerRefused) as caught:
        service.reload()
    assert caught.value.code == code
    assert "deploy.domain to system" in caught.value.hint
    assert never not in caught.value.hint


def test_the_system_domain_needs_root_and_is_nothing_to_fear_for_a_reader(site: Site) -> None:
    _set(site)
    service = _script(site, "exec sleep 1000", domain="system")
    assert service.plist.parent.name == "LaunchDaemons"
    assert not service.inspect().loaded
    with pytest.raises(ManagerRefused) as caught:
        service.reload()
    assert (caught.value.code, "sudo" in caught.value.hint) == (codes.NOT_PERMITTED, True)
    _set(site, root=True)
    service.reload()
    assert service.inspect().running
    _set(site)
    assert service.inspect().running
