"""A full disk stops what needs room, and nothing for good: with room again, everything goes on by itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from toolchain.service.emulator.daemon import TABLE

from .conftest import DOMAIN, LABEL, TARGET, Launchd

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the limits of another process are set on Linux only"),
]


@contextmanager
def _no_room(launchd: Launchd) -> Iterator[None]:
    """The emulator and what it starts cannot write a byte to any file, as on a full disk, but as any user."""
    import resource

    daemon = launchd.daemon()
    before = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, before)


def test_a_job_is_started_again_after_the_disk_was_full(launchd: Launchd) -> None:
    log, folder = launchd.folder / "logs" / "log", launchd.folder / "logs"
    folder.mkdir()
    text = "echo up || exit 1; exec sleep 1000"
    path = launchd.script(text, KeepAlive=True, StandardOutPath=str(log), StandardErrorPath=str(log))
    launchd("bootstrap", DOMAIN, str(path))
    launchd.until(launchd.pid)
    daemon = launchd.daemon().pid
    with _no_room(launchd):
        log.unlink()
        folder.rename(launchd.folder / "away")  # not even the log can be opened
        launchd("kill", "SIGTERM", TARGET)
        launchd.until(lambda: launchd.field("last exit code") == "78")
        (launchd.folder / "away").rename(folder)
        runs = int(launchd.field("runs"))
        launchd.until(lambda: int(launchd.field("runs")) > runs and launchd.field("last exit code") not in ("78", "0"))
        launchd("kickstart", TARGET)
        launchd("disable", f"{DOMAIN}/another.job")
    launchd.until(lambda: launchd.pid() and log.exists() and log.read_text() == "up\n")
    assert launchd.daemon().pid == daemon

    def saved() -> bool:
        table = json.loads((launchd.root / TABLE).read_text())
        return [job["pid"] for job in table["jobs"]] == [launchd.pid()] and "another.job" in table["disabled"][DOMAIN]

    launchd.until(saved)


def test_a_disk_that_is_full_from_the_first_command_on(launchd: Launchd) -> None:
    launchd("print", DOMAIN)
    with _no_room(launchd):
        launchd("bootstrap", DOMAIN, str(launchd.script("exec sleep 1000", RunAtLoad=True)))
        launchd.until(launchd.pid)
        assert not (launchd.root / TABLE).exists()
    launchd.until((launchd.root / TABLE).exists)
    assert LABEL in (launchd.root / TABLE).read_text()
    launchd("bootout", TARGET)
    launchd.until(lambda: launchd.code("print", TARGET) == 113)


def test_a_damaged_table_is_put_aside(launchd: Launchd) -> None:
    launchd("bootstrap", DOMAIN, str(launchd.script("exec sleep 1000", RunAtLoad=True)))
    launchd.until(launchd.pid)
    launchd.daemon().kill()
    (launchd.root / TABLE).write_text("{")
    launchd("print", TARGET, expect=113)
    assert (launchd.root / f"{TABLE}.damaged").read_text() == "{"
