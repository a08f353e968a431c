from __future__ import annotations

import os
import plistlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from toolchain.service.emulator import daemon, settings
from toolchain.service.emulator import launchctl as client_module
from toolchain.service.emulator.verbs import STOP_VERB

DOMAIN = f"gui/{os.getuid()}"
LABEL = "test.job"
TARGET = f"{DOMAIN}/{LABEL}"


@dataclass
class Launchd:
    """An emulator under test."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def set(self, **changes: Any) -> None:
        """Settings over short times."""
        values: dict[str, Any] = {"owner_pid": os.getpid(), "throttle_cap_s": 0.2, "bootout_delay_s": 0.0}
        settings.write(self.root, settings.Settings(**(values | changes)))

    def plist(self, *arguments: str, **keys: Any) -> Path:
        """Write a job's plist that runs `arguments`."""
        path = self.folder / f"{keys.get('Label', LABEL)}.plist"
        path.write_bytes(plistlib.dumps({"Label": LABEL, "ProgramArguments": list(arguments), **keys}))
        path.chmod(0o644)
        return path

    def script(self, text: str, **keys: Any) -> Path:
        """A plist whose job is a shell script."""
        return self.plist("/bin/sh", "-c", text, **keys)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", client_module.__file__, *words],
            env={**os.environ, settings.ROOT_VARIABLE: str(self.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str, expect: int = 0) -> str:
        """Run one command, hold its exit code against `expect`, and return what it printed."""
        with self.start(*words) as client:
            out, err = client.communicate(timeout=30)
        assert client.returncode == expect, (words, client.returncode, out, err)
        return out + err

    def code(self, *words: str) -> int:
        """Run one command; its exit code."""
        with self.start(*words) as client:
            client.communicate(timeout=30)
        return client.returncode

    def field(self, name: str, target: str = TARGET) -> str:
        """A field of the job's own in `print`; empty when it is not there."""
        for line in self("print", target).splitlines():
            if line.startswith(f"\t{name} = "):
                return line.split(" = ", 1)[1]
        return ""

    def pid(self) -> int:
        return int(self.field("pid") or 0)

    def until(self, condition: Callable[[], object], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.root / "daemon.log").read_text()
            time.sleep(0.02)

    def daemon(self) -> psutil.Process:
        """The emulator's own process: the one that holds its lock."""
        (found,) = (
            process
            for process in psutil.process_iter(["cmdline", "cwd"])
            if daemon.__name__ in (process.info["cmdline"] or ()) and process.info["cwd"] == str(self.root)
        )
        return found


@pytest.fixture
def launchd(tmp_path: Path) -> Iterator[Launchd]:
    emulator = Launchd(tmp_path)
    emulator.root.mkdir()
    emulator.set()
    yield emulator
    if emulator.root.is_dir():
        emulator.set()
        emulator(STOP_VERB)
