"""What an earlier version of this toolkit installed, or left half done, is taken over as it stands."""

from __future__ import annotations

import json
import os
import plistlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.processes import ended
from toolchain.core import records
from toolchain.deploy import installed, installer
from toolchain.service import managers
from toolchain.service.manager import Definition, Registration
from toolchain.service.propertylist import property_list

from .site import Site, identifier, install

_FIELDS = {"unit_file": "plist", "unit_sha256": "plist_sha256"}
_STEPS = {"unit": "plist", "unload": "bootout"}
_PLIST = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>io.turboquant.ollama</string>
	<key>ProgramArguments</key>
	<array>
		<string>/opt/a &amp; b/bin/turboquant-ollama</string>
	</array>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<true/>
	<key>ProcessType</key>
	<string>Interactive</string>
	<key>ThrottleInterval</key>
	<integer>10</integer>
	<key>ExitTimeOut</key>
	<integer>10</integer>
	<key>EnvironmentVariables</key>
	<dict>
		<key>HOME</key>
		<string>/Users/someone</string>
		<key>PATH</key>
		<string>/usr/bin:/bin:/usr/sbin:/sbin</string>
	</dict>
	<key>StandardOutPath</key>
	<string>/opt/a &amp; b/logs/ollama.log</string>
	<key>StandardErrorPath</key>
	<string>/opt/a &amp; b/logs/ollama.log</string>
	<key>UserName</key>
	<string>someone</string>
</dict>
</plist>
"""


def _rename(path: Path, fields: dict[str, str], steps: dict[str, str]) -> None:
    data = {fields.get(name, name): value for name, value in json.loads(path.read_text()).items()}
    if "step" in data:
        data["step"] = steps[data["step"]]
    path.write_text(json.dumps(data))


def test_the_property_list_is_the_same_but_for_its_sessions() -> None:
    """Another one is loaded anew, with the race after bootout: once, at the first deploy by this version."""
    definition = Definition(program=Path("/opt/a & b/bin/turboquant-ollama"), log=Path("/opt/a & b/logs/ollama.log"))
    made = property_list(definition, label="io.turboquant.ollama", home=Path("/Users/someone"), user="someone")
    head, key, rest = made.decode().partition("\t<key>LimitLoadToSessionType</key>\n")
    assert key
    assert head + rest.partition("\t</array>\n")[2] == _PLIST


@pytest.mark.slow
def test_its_state_is_read_and_nothing_is_restarted(site: Site) -> None:
    a, b = site.release("a"), site.release("b")
    site.install(a)
    before = site.install(b)
    written = installed.read(site.prefix)
    _rename(site.prefix.state, _FIELDS, _STEPS)
    assert installed.read(site.prefix) == written
    assert site.status() == before
    assert site.install(b) == before
    assert "plist" in json.loads(site.prefix.state.read_text())
    assert installer.rollback(site.config, site.console).active == identifier(a)
    assert "unit_file" in json.loads(site.prefix.state.read_text())
    site.assert_clean()


@pytest.mark.slow
def test_its_service_is_replaced_under_a_new_label(site: Site) -> None:
    release = site.release("1")
    old = site.install(release)
    _rename(site.prefix.state, _FIELDS, _STEPS)
    assert site.configured(label="io.turboquant.other").install(release).healthy
    assert ended(old.pid)
    assert [path.name for path in (site.emulator / "LaunchAgents").iterdir()] == ["io.turboquant.other.plist"]


@pytest.mark.slow
def test_its_property_list_is_replaced_once(site: Site) -> None:
    site.install(site.release("a"))
    plist = site.emulator / "LaunchAgents" / "io.turboquant.ollama.plist"
    content = plistlib.loads(plist.read_bytes())
    del content["LimitLoadToSessionType"]
    plist.write_bytes(plistlib.dumps(content, sort_keys=False))
    known = installed.read(site.prefix)
    installed.write(site.prefix, replace(known, unit_sha256=records.sha256_file(plist)))
    assert site.install(site.release("b")).healthy
    # Each deploy stops a release once, to see it end; a bootstrap counts anew.
    assert "runs = 2\n" in site.launchctl("print", f"gui/{os.getuid()}/io.turboquant.ollama").stdout
    assert plistlib.loads(plist.read_bytes()).keys() > content.keys()
    assert site.install(site.release("c")).healthy
    assert "runs = 4\n" in site.launchctl("print", f"gui/{os.getuid()}/io.turboquant.ollama").stdout


@pytest.mark.slow
def test_its_interrupted_install_is_finished(site: Site) -> None:
    site.install(site.release("a"))
    b = site.release("b")
    site.killed(install, b, site.config, at="unit")
    _rename(site.prefix.state, _FIELDS, _STEPS)
    _rename(site.prefix.journal, {}, _STEPS)
    after = site.status()
    assert (after.active, after.healthy) == (identifier(b), True)
    site.assert_clean()


@pytest.mark.slow
def test_its_interrupted_uninstall_is_finished(site: Site) -> None:
    pid = site.install(site.release("a")).pid
    site.killed(installer.uninstall, site.config, at="unload")
    _rename(site.prefix.state, _FIELDS, _STEPS)
    _rename(site.prefix.journal, {}, _STEPS)
    assert site.status().reason == "nothing is installed"
    assert ended(pid)
    assert not (site.emulator / "LaunchAgents" / "io.turboquant.ollama.plist").exists()


def test_the_emulators_former_name_is_taken(site: Site) -> None:
    both = [site.configured(service_manager=name).config.deploy for name in ("standin", "emulator")]
    found = [managers.choose(config, site.prefix.folder, loaded_in="system") for config in both]
    assert found[0] == found[1]
    folder = site.prefix.folder / "launchd" / "LaunchDaemons"
    file = str(folder / "io.turboquant.ollama.plist")
    expected = Registration(label="io.turboquant.ollama", domain="system", file=file, manager="emulator")
    assert found[0].registration == expected
