"""What the area about the machine makes of the words of macOS's programs, which scripts say here."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import pytest

from toolchain.firstrun.areas import machine
from toolchain.firstrun.assumption import Probe, Verdict
from toolchain.firstrun.bench import Bench
from toolchain.host import gpulimit
from toolchain.service import account

M3_MAX = {
    "sysctl.proc_translated": "0", "hw.optional.arm64": "1", "machdep.cpu.brand_string": "Apple M3 Max",
    "hw.memsize": str(64 << 30), "hw.physicalcpu": "16", "iogpu.wired_limit_mb": "0",
}  # fmt: skip
DEVICE = """device Apple M3 Max
recommendedMaxWorkingSetSize {limit}
maxBufferLength 38654705664
maxThreadgroupMemoryLength 32768
hasUnifiedMemory 1
family Apple8
family Apple9
"""


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mac:
    made = Mac(tmp_path / "programs")
    monkeypatch.setattr(machine, "_PROGRAMS", str(made.folder))
    monkeypatch.setattr(machine, "_SYSCTL", str(made.folder / "sysctl"))
    monkeypatch.setattr(machine, "_SCUTIL", str(made.folder / "scutil"))
    monkeypatch.setattr(gpulimit, "_PROGRAM", made.folder / "metal.py")
    return made


class Mac:
    """A folder with programs of these names. A new one is an M3 Max at whose screen the caller is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.sysctl(**{})
        self.has("sw_vers", "printf 'ProductName:\t\tmacOS\nProductVersion:\t\t15.6\nBuildVersion:\t\t24G84\n'")
        self.has("xcode-select", "echo /Library/Developer/CommandLineTools")
        self.has("profiles", "echo 'Enrolled via DEP: No'; echo 'MDM enrollment: Yes (User Approved)'")
        self.screen(account.name_of(os.getuid()))
        self.device(DEVICE.format(limit=48 << 30))

    def has(self, name: str, script: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / name).chmod(0o755)

    def sysctl(self, **changes: str) -> None:
        known = M3_MAX | {name.replace("__", "."): value for name, value in changes.items()}
        cases = "".join(f"{name}) echo '{name}: {value}';;\n" for name, value in known.items())
        self.has("sysctl", f'for name; do case $name in {cases} *) echo "unknown oid" >&2;; esac; done')

    def screen(self, user: str) -> None:
        self.has("scutil", f"printf '<dictionary> {{\n  GID : 20\n  Name : {user}\n  UID : 501\n}}\n'")

    def device(self, says: str, code: int = 0) -> None:
        """xcrun clang makes a program that says this."""
        (self.folder / "device").write_text(says)
        limit = re.search(r"WorkingSetSize (\d+)", says)
        (self.folder / "metal.py").write_text(f"print({limit[1] if limit else 0})")
        self.has(
            "xcrun",
            f"""if [ "$2" = --version ]; then echo 'Apple clang version 17.0.0 (clang-1700.0.13.5)'; exit; fi
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\\ncat {self.folder}/device; exit {code}\\n' >"$2"; chmod +x "$2" """,
        )

    def without_tools(self) -> None:
        self.has("xcode-select", "echo 'error: unable to get active developer directory' >&2; exit 2")
        self.has("xcrun", f"touch {self.folder}/stub-was-run")


def examine(name: str, bench: Bench) -> Verdict:
    return PROBES[f"machine.{name}"].test(bench)


PROBES: dict[str, Probe] = {one.assumption.id: one for one in machine.PROBES}


def test_a_sound_mac(mac: Mac, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    said = {
        "system": "macOS 15.6 (24G84)",
        "chip": "Apple M3 Max, 64 GiB, GPU family Apple9",
        "native": "arm64, sysctl.proc_translated = 0",
        "tools": "/Library/Developer/CommandLineTools: Apple clang version 17.0.0 (clang-1700.0.13.5)",
        "metal-device": "Apple M3 Max here",
        "gpu-family": "Apple M3 Max: Apple9 by Metal, Apple9 by our table",
        "metal-limit": "of 64 GiB Metal may use 48.00 GiB; we expect 48.00 to 51.84 GiB",
        "wired-limit": "iogpu.wired_limit_mb = 0",
        "enrolment": "Enrolled via DEP: No; MDM enrollment: Yes (User Approved)",
    }
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    for name, reason in said.items():
        found = examine(name, bench)
        assert (found.status, found.reason) == ("confirmed", reason), name
        assert found.evidence
    compiled = [one for one in bench.kept if " -framework Metal " in one.command]
    assert len(compiled) == 1, "the program is made once"


def test_under_rosetta(mac: Mac, bench: Bench) -> None:
    mac.sysctl(sysctl__proc_translated="1")
    found = examine("native", bench)
    assert found.status == "refuted"
    assert "this Python runs under Rosetta" in found.reason
    assert "start ./inv with an arm64 Python" in found.reason


def test_without_developer_tools_no_stub_is_run(mac: Mac, bench: Bench) -> None:
    mac.without_tools()
    tools = examine("tools", bench)
    assert (tools.status, tools.reason) == ("refuted", "no developer tools: xcode-select --install")
    for name in ("metal-device", "gpu-family", "metal-limit"):
        assert examine(name, bench).status == "not tested"
    assert not (mac.folder / "stub-was-run").exists()


def test_a_licence_that_was_not_agreed_to(mac: Mac, bench: Bench) -> None:
    mac.has("xcrun", "echo 'You have not agreed to the Xcode license agreements.' >&2; exit 69")
    tools = examine("tools", bench)
    assert (tools.status, tools.evidence[-1].code) == ("refuted", 69)
    assert "sudo xcodebuild -license" in tools.reason
    assert examine("metal-device", bench).reason == "the program does not compile"


def test_no_metal_in_this_session(mac: Mac, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 5000 192.0.2.2 22")
    mac.device("no device\n", code=1)
    device = examine("metal-device", bench)
    assert (device.status, device.reason) == ("refuted", "MTLCreateSystemDefaultDevice gives nil over SSH")
    assert examine("metal-limit", bench).status == "not tested"


def test_a_limit_that_is_another_one(mac: Mac, bench: Bench) -> None:
    mac.device(DEVICE.format(limit=40 << 30))
    assert examine("metal-limit", bench).status == "refuted"


def test_a_chip_that_is_newer_than_the_table(mac: Mac, bench: Bench) -> None:
    mac.sysctl(machdep__cpu__brand_string="Apple M9")
    assert examine("chip", bench).reason == "Apple M9, 64 GiB, GPU family unknown"
    assert examine("gpu-family", bench).status == "refuted"


@pytest.mark.parametrize(
    ("user", "who"), [("loginwindow", "nobody"), ("_mbsetupuser", "nobody"), ("someone", "another user")]
)
def test_who_is_at_the_screen(mac: Mac, bench: Bench, user: str, who: str) -> None:
    mac.screen(user)
    assert f"at the screen by scutil: {who};" in examine("console-user", bench).reason


def test_words_that_nobody_expects(mac: Mac, bench: Bench) -> None:
    for name in ("sw_vers", "sysctl", "scutil", "profiles", "xcrun"):
        mac.has(name, "printf '\\377\\000: :\\n: \\n'; exit 3")
    for name in PROBES:
        if name not in ("machine.session", "machine.own-processes", "machine.listener", "machine.bind-beside-wildcard"):
            assert PROBES[name].test(bench).status in ("refuted", "not tested", "confirmed"), name
    assert examine("system", bench).status == "refuted"
    assert examine("enrolment", bench).status == "refuted"
