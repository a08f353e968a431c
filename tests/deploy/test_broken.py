"""What breaks under a deploy after its swap: each time the previous release is active and healthy in the end.

The damage is real wherever that is possible, and is done when the health check begins. Most cases need root or Linux
for it (a small file system of its own, an immutable file) and are skipped elsewhere.
"""

from __future__ import annotations

import errno
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from toolchain.core import config as configuration
from toolchain.core import records
from toolchain.core.errors import ConfigError, RolledBack, Unhealthy
from toolchain.deploy import activation, health, installed, installer
from toolchain.deploy.journal import FROM_SWAP, Journal
from toolchain.service import address
from toolchain.service.units import ollama

from .site import Site, identifier, install

pytestmark = pytest.mark.slow

DEADLINE_S = 40.0
"""for a failed deploy with its restore: twice the health timeout of a site, and a margin for a busy machine"""

_names = itertools.count()


def at(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, damage: Callable[[], object]) -> None:
    """Do damage once, when a function is first called."""
    original, times = getattr(place, name), itertools.count()

    def damaged(*arguments: Any, **named: Any) -> Any:
        if next(times) == 0:
            damage()
        return original(*arguments, **named)

    monkeypatch.setattr(place, name, damaged)


def refused(site: Site, **changes: Any) -> str:
    """Deploy a release, which must be rolled back in time, and return the message."""
    old, begun = site.status(), time.monotonic()
    with pytest.raises(RolledBack, match=r"rolled back: release .* is active and healthy") as caught:
        site.configured(**changes).install(site.release(f"new-{next(_names)}"))
    assert time.monotonic() - begun < DEADLINE_S
    now = site.status()
    assert (now.active, now.healthy, now.releases) == (old.active, True, old.releases)
    site.assert_clean()
    assert not site.prefix.before.exists()
    return caught.value.message


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A small file system at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "none", folder], capture_output=True)
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    """Use up all space, to the last byte."""
    with (folder / "filler").open("ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert shutil.disk_usage(folder).free == 0


@contextmanager
def small_site(folder: Path) -> Iterator[Site]:
    """A site whose prefix is a file system of its own; the emulator, which stands for macOS, is outside of it."""
    with mounted(folder / "pre & fix", "4m") as prefix:
        (folder / "emulator").mkdir()
        (prefix / "launchd").symlink_to(folder / "emulator")
        site = Site.make(folder)
        try:
            yield site
        finally:
            site.close()


def test_a_host_that_no_server_can_listen_on_is_refused_before_anything_is_changed(running: Site) -> None:
    with pytest.raises(ConfigError, match=r"deploy\.host"):
        configuration.load(environ={}, flags={"deploy.host": "a" * 300})
    for host in ("a" * 253, "192.0.2.7", "host.invalid", "-.-"):
        with pytest.raises(ConfigError, match="no address of this machine"):
            running.configured(host=host).install(running.release(f"never-{next(_names)}"))
    for host in ("127.0.0.1", "localhost", "0.0.0.0", ""):
        address.check_local(host)
    running.assert_clean()


def test_a_host_of_300_letters_all_the_same(running: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As read from a release's own environment, or from a name that is no longer known."""
    monkeypatch.setattr(address, "check_local", lambda _host: None)
    assert "release new-" in refused(running, host="a" * 300, health_timeout_s=2.0)


@pytest.mark.parametrize(
    ("place", "name", "error"),
    [
        (health, "check", TypeError("'NoneType' object is not subscriptable")),
        (ollama, "_generate", RecursionError("maximum recursion depth exceeded")),
        (activation, "bless", MemoryError()),
        (installed, "write", UnicodeEncodeError("ascii", "\u00e9", 0, 1, "ordinal not in range")),
    ],
)
def test_a_bug_is_named_and_its_traceback_kept(
    running: Site,
    place: Any,
    name: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    at(monkeypatch, place, name, fail)
    message = refused(running)
    kept = message.partition("its traceback: ")[2].partition("\n")[0]
    assert f"a bug of the deployer: {type(error).__name__}: {error}" in message
    assert "Traceback" in Path(kept).read_text()
    assert "Traceback" not in capfd.readouterr().err


def test_a_temporary_folder_that_is_missing_or_without_space_does_not_matter(
    running: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert running.install(running.release(f"new-{next(_names)}")).healthy
    with mounted(tmp_path / "small", "8k") as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        assert running.install(running.release(f"new-{next(_names)}")).healthy


@pytest.mark.parametrize("how", ["file", "dangling link"])
def test_no_folder_for_logs(running: Site, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = running.prefix.logs

    def damage() -> None:
        shutil.rmtree(logs)
        logs.write_text("") if how == "file" else logs.symlink_to("/nowhere/else")

    at(monkeypatch, activation, "_load_and_restart", damage)
    assert running.install(running.release(f"new-{next(_names)}")).healthy  # set aside before the restart

    def damage_and_fail() -> None:
        damage()
        raise Unhealthy("as it happens")

    at(monkeypatch, health, "check", damage_and_fail)
    assert "as it happens" in refused(running)
    assert logs.is_dir()
    assert not logs.is_symlink()


def test_the_log_has_a_second_link(running: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root does not read it then, and goes back all the same."""
    second = running.prefix.logs / "backup"

    def link_and_fail() -> None:
        os.link(running.log_file, second)
        raise Unhealthy("as it happens")

    at(monkeypatch, health, "check", link_and_fail)
    try:
        message = refused(running)
    finally:
        second.unlink()
    assert "as it happens" in message
    assert ("unreadable" in message) is (os.geteuid() == 0)


def test_the_state_is_a_folder(running: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage() -> None:
        running.prefix.state.unlink()
        (running.prefix.state / "in the way").mkdir(parents=True)

    at(monkeypatch, health, "check", damage)
    refused(running)


def test_the_state_cannot_be_written(running: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    if subprocess.run(["chattr", "+i", running.prefix.shim], capture_output=True).returncode:
        pytest.skip("needs root and a file system with immutable files")
    subprocess.run(["chattr", "-i", running.prefix.shim], check=True)
    at(monkeypatch, health, "check", lambda: subprocess.run(["chattr", "+i", running.prefix.state], check=True))
    try:
        assert "not permitted" in refused(running)
    finally:
        subprocess.run(["chattr", "-i", running.prefix.state], check=True)


def test_the_emulator_is_killed(running: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage() -> None:
        for process in psutil.process_iter(["pid", "cmdline"]):
            emulates = "toolchain.service.emulator.daemon" in (process.info["cmdline"] or [])
            if emulates and Path(process.cwd()) == running.emulator:
                process.send_signal(signal.SIGKILL)

    at(monkeypatch, health._Trial, "watch", damage)
    assert "process ended" in refused(running)


def test_no_file_descriptors_are_left(running: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as held:

        def damage() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
            with suppress(OSError):
                while True:
                    held.callback(os.close, os.open(os.devnull, os.O_RDONLY))

        at(monkeypatch, health, "check", damage)
        try:
            refused(running)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", ["pipe", "closed", "none", "full"])
def test_nobody_reads_what_the_deploy_says(running: Site, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no reason to end it: a session over SSH may be lost."""
    reader, writer = os.pipe()
    os.close(reader)
    if how == "full":
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    with suppress(OSError), os.fdopen(writer, "w", buffering=1) as broken:
        if how == "closed":
            broken.close()
        monkeypatch.setattr(sys, "stderr", None if how == "none" else broken)
        new = running.install(running.release(f"new-{next(_names)}"))
        at(monkeypatch, activation, "bless", lambda: Path("/nowhere").readlink())
        refused(running)
    monkeypatch.undo()
    assert running.status().active == new.active
    running.assert_clean()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("step", FROM_SWAP)
def test_the_disk_is_full_from_a_step_on(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_site(tmp_path) as site:
        old = site.install(site.release("good"))
        original = Journal.begin_step

        def begin(self: Journal, name: str) -> None:
            if name == step:
                fill(site.prefix.folder)
            original(self, name)

        monkeypatch.setattr(Journal, "begin_step", begin)
        new = site.release("new")
        begun = time.monotonic()
        if step == "prune":  # it is blessed: old releases may stay
            assert site.install(new).healthy
        else:
            with pytest.raises(RolledBack, match="no space left"):
                site.install(new)
        assert time.monotonic() - begun < DEADLINE_S
        now = site.status()
        assert (now.active, now.healthy) == (identifier(new) if step == "prune" else old.active, True)
        assert not site.prefix.journal.exists()
        (site.prefix.folder / "filler").unlink()
        monkeypatch.undo()
        assert site.install(site.release("later")).healthy
        site.assert_clean()


def test_other_settings_on_a_full_disk_are_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_site(tmp_path) as site:
        source = site.release("good")
        site.install(source)
        environment = site.prefix.release(identifier(source)) / "environment"
        before = environment.read_bytes()
        at(monkeypatch, health, "check", lambda: fill(site.prefix.folder))
        with pytest.raises(RolledBack, match="no space left"):
            site.configured(kv_cache_type="f16").install(source)
        assert environment.read_bytes() == before
        assert site.status().healthy


def test_a_deploy_whose_next_command_finds_no_space_goes_back(tmp_path: Path) -> None:
    with small_site(tmp_path) as site:
        old = site.install(site.release("good"))
        site.killed(install, site.release("new"), site.config, at="health")
        fill(site.prefix.folder)
        now = site.status()
        assert (now.active, now.healthy) == (old.active, True)


def test_another_label_is_taken_back(running: Site) -> None:
    """The definition and the registration come back, too."""
    before = running.status()
    elsewhere = running.configured(label="io.turboquant.other")
    with pytest.raises(RolledBack, match="is active and healthy"):
        elsewhere.install(running.release(f"bad-{next(_names)}", does="exit"))
    assert running.launchctl("print", f"gui/{os.getuid()}/io.turboquant.other").returncode == 113
    assert running.launchctl("print", f"gui/{os.getuid()}/io.turboquant.ollama").returncode == 0
    after = running.status()
    assert (after.active, after.healthy) == (before.active, True)
    running.assert_clean()


def test_nothing_is_swapped_without_a_restore_point(running: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    running.install(running.release(f"new-{next(_names)}"))
    before = running.status()
    original = records.write_bytes

    def full(path: Path, data: bytes, **named: Any) -> None:
        if path.parent.name == "before.new":
            raise OSError(errno.EIO, "input/output error")
        original(path, data, **named)

    monkeypatch.setattr(records, "write_bytes", full)
    new = running.release(f"new-{next(_names)}")
    with pytest.raises(OSError, match="input/output"):
        running.install(new)
    with pytest.raises(OSError, match="input/output"):
        installer.rollback(running.config, running.console)
    after = running.status()
    assert (after.pid, after.healthy) == (before.pid, True)
    running.assert_clean()
