from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.answering import answering
from toolchain.core.config import load
from toolchain.host import gpulimit, machine
from toolchain.text import as_text

GIB = 1 << 30

PROGRAMS = {
    "sysctl": (
        "hw.memsize: 38654705664\nmachdep.cpu.brand_string: Apple M3 Max\nhw.physicalcpu: 14\niogpu.wired_limit_mb: 0\n"
    ),
    "sw_vers": "ProductName:\t\tmacOS\nProductVersion:\t\t15.6\nBuildVersion:\t\t24G84\n",
    "system_profiler": json.dumps(
        {
            "SPDisplaysDataType": [
                {
                    "_name": "Apple M3 Max",
                    "spdisplays_mtlgpufamilysupport": "spdisplays_metal3",
                    "sppci_bus": "spdisplays_builtin",
                    "sppci_cores": "30",
                    "sppci_device_type": "spdisplays_gpu",
                    "sppci_model": "Apple M3 Max",
                }
            ]
        }
    ),
    "xcode-select": "/Library/Developer/CommandLineTools\n",
}
"""What the programs of macOS print, in their formats."""
_CAT = "while IFS= read -r line; do printf '%s\\n' \"$line\"; done"


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that answer as on a Mac, alone on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in PROGRAMS.items():
        _program(folder, name, text)
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(gpulimit, "_PROGRAM", folder / "metal.py")
    metal_says(folder, 0)
    return folder


def metal_says(folder: Path, limit: int) -> None:
    (folder / "metal.py").write_text(f"print({limit})")


def _program(folder: Path, name: str, text: str, code: int = 0) -> None:
    (folder / f"{name}.txt").write_text(text.rstrip("\n") + "\n")
    path = folder / name
    path.write_text(f"#!/bin/sh\n{_CAT} < {folder}/{name}.txt\nexit {code}\n")
    path.chmod(0o755)


def look(tmp_path: Path) -> machine.Machine:
    return machine.look(load(environ={}, flags={"workspace": str(tmp_path / "not" / "there")}))


def test_a_mac(mac: Path, tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found.system == "macOS 15.6 (24G84)"
    assert (found.chip, found.cores, found.gpu, found.gpu_family) == (
        "Apple M3 Max",
        14,
        "Apple M3 Max, 30 cores",
        "Apple9",
    )
    assert (found.ram, found.gpu_limit, found.gpu_limit_most // (1 << 20)) == (36 * GIB, 27 * GIB, 28753)
    assert found.developer_tools == "/Library/Developer/CommandLineTools"
    assert found.unknown == ()
    assert "may use 27.0 to 28.1 GiB (published figures" in as_text(found)


def test_a_mac_whose_metal_says_its_limit(mac: Path, tmp_path: Path) -> None:
    metal_says(mac, 30150672384)
    found = look(tmp_path)
    assert (found.gpu_limit, found.gpu_limit_most, found.gpu_limit_by_hand) == (30150672384, 30150672384, False)
    assert "may use 28.1 GiB (Metal)" in as_text(found)
    _program(mac, "sysctl", PROGRAMS["sysctl"].replace("wired_limit_mb: 0", "wired_limit_mb: 20000"))
    metal_says(mac, 20000 << 20)
    assert "19.5 GiB (Metal, with iogpu.wired_limit_mb=20000; a reboot undoes that)" in as_text(look(tmp_path))


def test_a_mac_that_does_not_say_everything(mac: Path, tmp_path: Path) -> None:
    _program(
        mac,
        "sysctl",
        "hw.memsize: 34359738368\nmachdep.cpu.brand_string: Apple M9 Ultra\nhw.physicalcpu: 8\n"
        "sysctl: unknown oid 'iogpu.wired_limit_mb'\n",
        1,
    )
    _program(mac, "xcode-select", "xcode-select: error: unable to get active developer directory\n", 2)
    _program(mac, "system_profiler", "{}")
    (mac / "sw_vers").unlink()
    found = look(tmp_path)
    assert (found.ram, found.gpu_limit // (1 << 20)) == (32 * GIB, 21845)
    assert (found.system, found.gpu, found.gpu_family, found.developer_tools) == ("", "", "", "")
    said = "\n".join(found.unknown)
    for piece in (
        "GPU family of Apple M9 Ultra",
        "sw_vers: no such program",
        "names none",
        "xcode-select -p: xcode-select: error",
    ):
        assert piece in said
        assert piece in as_text(found)


def test_this_machine(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found.ram > GIB
    assert found.cores >= 1
    assert found.free_disk > 0
    if sys.platform != "darwin":
        assert found.ram == psutil.virtual_memory().total
        assert any("macOS only" in one for one in found.unknown)


@contextlib.contextmanager
def _answering(body: bytes) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    with answering(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield port


def test_who_serves_a_port() -> None:
    with (
        _answering(b'{"version": "0.33.0-turbo1"}') as ollama,
        _answering(b"<html>") as other,
        socket.socket() as probe,
    ):
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
        found = {port.number: port for port in machine.ports({ollama, other, free})}
    assert set(found) == {ollama, other}
    assert (found[ollama].ollama, found[other].ollama) == ("0.33.0-turbo1", "")
    assert found[ollama].program.endswith(f"(pid {os.getpid()})")
