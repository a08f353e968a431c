"""The service's log: rotated beside a running service, followed through restarts, and what monitoring is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.processes import ended
from toolchain.core.config import DeployConfig
from toolchain.core.errors import PrefixUnsafe
from toolchain.deploy import failure, following, installer, ownership, shim
from toolchain.deploy.prefix import Prefix
from toolchain.service import placement, servicelog

from .site import Site

ROOT = Path(__file__).parents[2]


def _served(folder: Path, program: str) -> tuple[Prefix, subprocess.Popen[bytes]]:
    """Run the shim as launchd does, over a release whose bin/ollama is that shell script."""
    prefix = Prefix(folder / "pre & fix")
    release = prefix.releases / "one"
    (release / "bin").mkdir(parents=True)
    (release / "environment").touch()
    (release / "bin/ollama").write_text(f"#!/bin/sh\n{program}\n")
    (release / "bin/ollama").chmod(0o755)
    prefix.current.symlink_to("releases/one")
    prefix.logs.mkdir()
    manager = placement.connect(DeployConfig(domain="system"), ("/bin/false",), {}, "")
    prefix.shim.parent.mkdir()
    prefix.shim.write_bytes(shim.render(prefix, manager, DeployConfig(log_mb=1, log_files=2)))
    with (prefix.logs / "ollama.log").open("ab") as log:
        argv = ["/bin/sh", str(prefix.shim)]
        return prefix, subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)


def _await(what: str, seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not seen():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_running_service_has_its_log_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shim, "ROTATION_INTERVAL_S", 0.05)
    say = 'i=0; while [ $i -lt 60000 ]; do i=$((i + 1)); echo "line $i of the service, which says much"; done'
    prefix, service = _served(tmp_path, f"{say}; exec sleep 60")  # no child that outlives it
    log = prefix.logs / "ollama.log"
    _await("rotated", lambda: servicelog.rotated(log) and log.stat().st_size < 1_000_000)
    beside = [one for one in psutil.process_iter() if _group(one.pid) == service.pid and one.pid != service.pid]
    children = [one.cmdline() for one in psutil.Process(service.pid).children()]
    assert not [words for words in children if str(prefix.shim) in words]  # the loop is none of them
    assert beside
    service.kill()
    service.wait()
    assert all(ended(one.pid) for one in beside)  # without the manager's help


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def test_no_rotation_while_a_deploy_compares_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shim, "ROTATION_INTERVAL_S", 0.05)
    prefix, service = _served(tmp_path, 'until [ -e "$OLDPWD/never" ]; do sleep 1; done')
    log = prefix.logs / "ollama.log"
    prefix.journal.write_text("{}")
    log.write_bytes(b"x" * 1_500_000)
    time.sleep(0.4)
    assert not servicelog.rotated(log)
    os.utime(prefix.journal, (time.time() - 4000, time.time() - 4000))  # its deploy was killed long ago
    _await("rotated", lambda: servicelog.rotated(log))
    os.killpg(service.pid, signal.SIGKILL)
    service.wait()


def test_few_logs_of_failed_releases_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "ollama.log"
    log.write_text("why\n")
    for number in range(9):
        target = tmp_path / f"failed-{9 - number}.log"
        failure.capture(log, 0, target)
        os.utime(target, (number, number))
    assert {path.name for path in tmp_path.glob("failed-*")} == {f"failed-{number}.log" for number in range(1, 6)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led elsewhere")
def test_root_reads_no_file_that_a_log_was_replaced_by(tmp_path: Path) -> None:
    """By a link between any look at it and the next reading, as its writer may."""
    log, secret = tmp_path / "ollama.log", tmp_path / "secret"
    log.write_text("one\n")
    secret.write_text("one\nsecret\n")
    manager = placement.connect(DeployConfig(domain="system"), ("/bin/false",), {}, "")
    seen = following.events(log, manager, 1)
    assert next(seen) == following.LogLine(log="one")
    log.unlink()
    log.symlink_to(secret)
    with pytest.raises(PrefixUnsafe, match="not a plain file"):
        next(seen)
    with pytest.raises(PrefixUnsafe):
        next(following.events(log, manager, 1))
    log.unlink()
    log.with_name("ollama.log.1").symlink_to(secret)
    with pytest.raises(PrefixUnsafe):
        next(following.events(log, manager, 1))


def test_links_to_nothing_among_them_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "ollama.log").write_text("why\n")
    for number in range(7):
        (tmp_path / f"failed-link{number}.log").symlink_to("/nowhere")
        os.utime(tmp_path / f"failed-link{number}.log", (number, number), follow_symlinks=False)
    kept = failure.capture(tmp_path / "ollama.log", 0, tmp_path / "failed-new.log")
    assert kept == (str(tmp_path / "failed-new.log"), ("why",))
    assert len(list(tmp_path.glob("failed-*"))) == failure.KEPT
    assert (tmp_path / "failed-new.log").is_file()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_log_that_is_no_file_is_named_and_leaks_nothing(tmp_path: Path, make: Callable[[Path], None]) -> None:
    log, before = tmp_path / "ollama.log", psutil.Process().num_fds()
    make(log)
    with pytest.raises(PrefixUnsafe, match=r"ollama\.log: not a file"):
        ownership.open_log(log)
    assert psutil.Process().num_fds() == before


@pytest.mark.slow
def test_status_for_monitoring(site: Site) -> None:
    def status(*words: str) -> tuple[int, dict[str, object], str]:
        done = subprocess.run(
            [sys.executable, "-P", "-c", "import tasks; tasks.start()", "deploy.status", "--json", *words],
            cwd=site.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout), done.stderr

    code, state, err = status("--check")
    assert (code, state["reason"]) == (52, "nothing is installed")
    assert "nothing is installed" in err
    first = site.install(site.release("one"))
    assert status("--check")[0] == 0
    site.launchctl("bootout", f"gui/{os.getuid()}/io.turboquant.ollama")
    assert ended(first.pid)
    code, state, err = status("--check")
    assert (code, state["healthy"]) == (52, False)
    assert str(state["reason"]) in err
    assert status()[0] == 0


@pytest.mark.slow
def test_following_a_service(site: Site) -> None:
    first = site.install(site.release("one"))
    words = ["deploy.logs", "--follow", "--lines", "1", "--json"]
    with subprocess.Popen(
        [sys.executable, "-P", "-c", "import tasks; tasks.start()", *words],
        cwd=site.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as following:  # fmt: skip
        assert following.stdout
        assert "log" in json.loads(following.stdout.readline())
        with site.log_file.open("a") as log:
            log.write("a line of ours\n")
        assert json.loads(following.stdout.readline()) == {"log": "a line of ours"}
        os.kill(first.pid, signal.SIGKILL)
        events = [json.loads(following.stdout.readline()) for _ in range(2)]
        assert any(event.get("log", "").startswith("started") for event in events)
        (restarted,) = (event for event in events if "restarted" in event)
        assert restarted["pid"] not in (0, first.pid)
        following.send_signal(signal.SIGINT)
        try:
            _, err = following.communicate(timeout=20)
        finally:
            following.kill()
    assert following.returncode == 130
    assert "Traceback" not in err
    assert installer.logs(site.config, 1).log[0].startswith("started")
