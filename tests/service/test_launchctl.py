"""The emulator from outside: its command line, the processes that it runs, and its exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.processes import alive, ended
from toolchain.service.emulator.verbs import LOGOUT_VERB, STOP_VERB

from .conftest import DOMAIN, LABEL, TARGET, Launchd

pytestmark = pytest.mark.slow

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
FOREVER = "exec sleep 1000"


def test_a_job_is_started_shown_and_stopped(launchd: Launchd) -> None:
    launchd("bootstrap", DOMAIN, str(launchd.script(FOREVER, RunAtLoad=True)))
    launchd.until(launchd.pid)
    pid = launchd.pid()
    assert alive(pid)
    assert (launchd.field("state"), launchd.field("runs")) == ("running", "1")
    assert launchd.field("last exit code") == "(never exited)"
    assert LABEL in launchd("print", DOMAIN)
    launchd("bootout", TARGET)
    launchd.until(lambda: not alive(pid))
    assert "Could not find service" in launchd("print", TARGET, expect=113)


def test_without_run_at_load_it_waits_for_a_kickstart(launchd: Launchd) -> None:
    launchd("bootstrap", DOMAIN, str(launchd.script(FOREVER)))
    assert (launchd.pid(), launchd.field("state")) == (0, "not running")
    said = launchd("kickstart", "-p", TARGET)
    assert said == f"service spawned with pid: {launchd.pid()}\n"
    first = launchd.pid()
    launchd("kickstart", TARGET)
    assert launchd.pid() == first
    launchd("kickstart", "-k", TARGET)
    assert launchd.pid() not in (0, first)
    assert not alive(first)


def test_what_the_process_gets(launchd: Launchd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKED", "from the caller")
    log = launchd.folder / "out"
    launchd.script("", Label="unused")
    path = launchd.plist(
        "/bin/sh",
        "-c",
        "pwd; env; echo problem >&2",
        RunAtLoad=True,
        EnvironmentVariables={"WORD": "a b"},
        StandardOutPath=str(log),
        StandardErrorPath=str(launchd.folder / "err"),
        WorkingDirectory="/usr",
    )
    launchd("bootstrap", DOMAIN, str(path))
    launchd.until(lambda: (launchd.folder / "err").exists() and (launchd.folder / "err").read_text())
    lines = log.read_text().splitlines()
    assert lines[0] == "/usr"
    assert {"WORD=a b", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", f"XPC_SERVICE_NAME={LABEL}"} <= set(lines)
    assert not any(line.startswith(("LEAKED", "HOME=")) for line in lines)
    assert (launchd.folder / "err").read_text() == "problem\n"
    launchd.until(lambda: launchd.field("last exit code") == "0")
    launchd("kickstart", TARGET)
    launchd.until(lambda: len(log.read_text().splitlines()) == 2 * len(lines))  # appended, not truncated


def test_keep_alive_starts_it_again_but_not_too_fast(launchd: Launchd) -> None:
    launchd.set(throttle_cap_s=0.3)
    log = launchd.folder / "starts"
    program = f"import time, sys; print(time.time(), file=open({str(log)!r}, 'a')); sys.exit(4)"
    launchd("bootstrap", DOMAIN, str(launchd.plist(sys.executable, "-IS", "-c", program, KeepAlive=True)))
    launchd.until(lambda: log.exists() and len(log.read_text().splitlines()) >= 3)
    assert launchd.field("last exit code") == "4"
    starts = [float(line) for line in log.read_text().splitlines()]
    assert starts[2] - starts[0] > 0.5  # twice the throttle, less what a start may waver


def test_the_throttle_is_ten_seconds_unless_said_otherwise(launchd: Launchd) -> None:
    launchd.set(throttle_cap_s=None)
    launchd("bootstrap", DOMAIN, str(launchd.script("exit 0", KeepAlive=True)))
    launchd.until(lambda: launchd.field("state") == "spawn scheduled")
    assert (launchd.field("minimum runtime"), launchd.field("runs")) == ("10", "1")
    launchd("kickstart", TARGET)  # does not wait for the throttle
    assert launchd.field("runs") == "2"


def test_a_successful_exit_ends_what_keep_alive_only_after_failure_keeps(launchd: Launchd) -> None:
    marker = launchd.folder / "second"
    text = f"if [ -e {marker} ]; then exit 0; fi; touch {marker}; exit 1"
    launchd("bootstrap", DOMAIN, str(launchd.script(text, KeepAlive={"SuccessfulExit": False})))
    launchd.until(lambda: launchd.field("runs") == "2" and launchd.field("state") == "not running")
    assert launchd.field("last exit code") == "0"


def test_kill_and_how_a_signal_is_shown(launchd: Launchd) -> None:
    launchd("bootstrap", DOMAIN, str(launchd.script(FOREVER, RunAtLoad=True)))
    launchd.until(launchd.pid)
    launchd("kill", "SIGKILL", TARGET)
    launchd.until(lambda: not launchd.pid())
    assert launchd.field("last terminating signal").endswith(": 9")
    assert "No such process" in launchd("kill", "TERM", TARGET, expect=3)
    launchd("kill", "NONSENSE", TARGET, expect=64)


def test_sigkill_follows_when_sigterm_is_ignored_and_children_go_too(launchd: Launchd) -> None:
    children = launchd.folder / "child"
    text = f"trap '' TERM; sleep 1000 & echo $! > {children}; while :; do sleep 0.1; done"
    launchd("bootstrap", DOMAIN, str(launchd.script(text, RunAtLoad=True, ExitTimeOut=1)))
    launchd.until(lambda: children.exists() and children.read_text())
    pid, child = launchd.pid(), int(children.read_text())
    launchd("bootout", TARGET)
    assert alive(pid)
    launchd.until(lambda: not alive(pid) and not alive(child))


def test_the_bootout_race(launchd: Launchd) -> None:
    """bootout answers 0 while process and label live; a bootstrap straight after fails with 37, then with 5."""
    launchd.set(bootout_delay_s=1.0)
    go = launchd.folder / "go"
    text = f"trap 'until [ -e {go} ]; do sleep 0.02; done; exit 0' TERM; while :; do sleep 0.05; done"
    path = str(launchd.script(text, RunAtLoad=True, ExitTimeOut=30))
    launchd("bootstrap", DOMAIN, path)
    launchd.until(launchd.pid)
    pid = launchd.pid()
    launchd("bootout", TARGET)
    assert alive(pid)
    assert "Bootstrap failed: 37" in launchd("bootstrap", DOMAIN, path, expect=37)
    launchd("bootout", TARGET, expect=36)
    launchd("kickstart", TARGET, expect=37)
    go.touch()
    launchd.until(lambda: not alive(pid))
    assert "Bootstrap failed: 5: Input/output error" in launchd("bootstrap", DOMAIN, path, expect=5)
    launchd("print", TARGET)
    launchd.until(lambda: launchd.code("print", TARGET) == 113)
    launchd("bootstrap", DOMAIN, path)


def test_disabled_until_enabled_and_the_record_outlives_the_emulator(launchd: Launchd) -> None:
    path = str(launchd.script(FOREVER, RunAtLoad=True))
    launchd("disable", TARGET)
    assert "Bootstrap failed: 119" in launchd("bootstrap", DOMAIN, path, expect=119)
    launchd(STOP_VERB)
    assert f'"{LABEL}" => disabled' in launchd("print-disabled", DOMAIN)
    launchd("bootstrap", DOMAIN, path, expect=119)
    launchd("enable", TARGET)
    launchd("bootstrap", DOMAIN, path)
    assert f'"{LABEL}" => enabled' in launchd("print-disabled", DOMAIN)


def test_the_plist_is_copied_at_bootstrap(launchd: Launchd) -> None:
    path = launchd.script(FOREVER, RunAtLoad=True)
    launchd("bootstrap", DOMAIN, str(path))
    launchd.script("exit 7", RunAtLoad=True)
    launchd("kickstart", "-k", TARGET)
    assert alive(launchd.pid())
    path.unlink()
    launchd("kickstart", "-k", TARGET)
    assert alive(launchd.pid())


def test_a_program_that_cannot_be_started(launchd: Launchd) -> None:
    launchd("bootstrap", DOMAIN, str(launchd.plist("/nowhere/at/all", RunAtLoad=True)))
    launchd.until(lambda: launchd.field("last exit code") == "78")
    assert "/nowhere/at/all" in (launchd.root / "daemon.log").read_text()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["print", f"{DOMAIN}/never.loaded"], 113),
        (["print", "gui/999999"], 112),
        (["print", "gui/999999/x"], 112),
        (["kickstart", f"{DOMAIN}/never.loaded"], 113),
        (["kickstart", "gui/999999/x"], 112),
        (["bootout", f"{DOMAIN}/never.loaded"], 3),
        (["bootstrap", "gui/999999", "x.plist"], 125),
        (["bootstrap", DOMAIN, "absent.plist"], 5),
        (["bootstrap", DOMAIN], 64),
        (["kickstart", "-z", f"{DOMAIN}/x"], 64),
        (["print", "nonsense"], 64),
        (["load", "x.plist"], 64),
        ([], 64),
    ],
)
def test_exit_codes(launchd: Launchd, words: list[str], code: int) -> None:
    assert launchd(*words, expect=code)


def test_wrong_mode_and_twice_loaded(launchd: Launchd) -> None:
    path = launchd.script(FOREVER)
    path.chmod(0o666)
    assert "Bootstrap failed: 122" in launchd("bootstrap", DOMAIN, str(path), expect=122)
    path.chmod(0o644)
    launchd("bootstrap", DOMAIN, str(path))
    assert "already loaded" in launchd("bootstrap", DOMAIN, str(path), expect=5)
    launchd("bootout", DOMAIN, str(path))  # by path, as launchctl also takes it
    launchd.until(lambda: launchd.code("print", TARGET) == 113)


def test_a_client_that_is_killed_does_not_stop_its_command(launchd: Launchd) -> None:
    text = "trap 'sleep 0.7; exit 0' TERM; while :; do sleep 0.05; done"
    launchd("bootstrap", DOMAIN, str(launchd.script(text, RunAtLoad=True)))
    launchd.until(launchd.pid)
    first = launchd.pid()
    with launchd.start(LOGOUT_VERB, str(os.getuid())) as client:
        launchd.until(lambda: _is_ending(first))
        os.kill(client.pid, signal.SIGKILL)
    launchd.until(lambda: launchd.code("print", DOMAIN) == 112)
    assert not alive(first)


def test_a_killed_emulator_leaves_no_orphan_and_comes_back_like_after_a_login(launchd: Launchd) -> None:
    child = launchd.folder / "child"
    text = f"sleep 1000 & echo $! > {child}; wait"
    launchd("bootstrap", DOMAIN, str(launchd.script(text, RunAtLoad=True)))
    launchd.until(lambda: child.exists() and child.read_text())
    first, grandchild = launchd.pid(), int(child.read_text())
    launchd.daemon().kill()
    child.unlink()
    launchd.until(lambda: launchd.pid() not in (0, first))
    assert not alive(first)
    assert ended(grandchild)


def test_a_command_that_comes_while_it_ends_for_idleness_is_answered_by_the_next(launchd: Launchd) -> None:
    launchd.set(idle_s=0.4)
    launchd("print", DOMAIN)
    daemon = launchd.daemon()
    daemon.suspend()
    with launchd.start("print", DOMAIN) as client:
        time.sleep(0.8)  # its idle time is over, and the command waits at its socket
        daemon.resume()
        out, err = client.communicate(timeout=30)
    assert (client.returncode, err) == (0, "")
    assert DOMAIN in out


def test_it_ends_when_nothing_is_loaded_and_when_its_folder_goes(launchd: Launchd) -> None:
    launchd.set(idle_s=0.3)
    launchd("print", DOMAIN)
    daemon = launchd.daemon()
    launchd.until(lambda: not alive(daemon.pid))
    launchd("bootstrap", DOMAIN, str(launchd.script(FOREVER, RunAtLoad=True)))
    launchd.until(launchd.pid)
    daemon, pid = launchd.daemon(), launchd.pid()
    launchd.root.rename(launchd.folder / "elsewhere")
    launchd.until(lambda: not alive(daemon.pid) and not alive(pid))


def test_it_ends_with_its_owner(launchd: Launchd) -> None:
    owner = launchd.start("print", DOMAIN)  # any process that will be gone
    launchd("bootstrap", DOMAIN, str(launchd.script(FOREVER, RunAtLoad=True)))
    launchd.until(launchd.pid)
    pid = launchd.pid()
    owner.communicate()
    launchd.set(owner_pid=owner.pid)
    launchd.start("print", DOMAIN).communicate()
    launchd.until(lambda: not alive(pid))


def test_the_root_folder_is_needed_and_may_lie_deep(launchd: Launchd) -> None:
    deep = launchd.root / ("x" * 100) / ("y" * 100)  # too long for the path of a socket
    launchd("--root", str(deep), "print", "system")
    launchd("--root", str(deep), STOP_VERB)
    module = [sys.executable, "-m", "toolchain.service.emulator.launchctl", "print", "system"]
    done = subprocess.run(module, env={"PYTHONPATH": str(PACKAGE_ROOT)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs a folder" in done.stderr


def _is_ending(pid: int) -> bool:
    """Whether the shell has got its SIGTERM and runs its trap."""
    return any("0.7" in child.cmdline() for child in psutil.Process(pid).children())
