"""A systemctl of the tests' own, with real processes, where no systemd can be started: one file, no dependencies.

It models what the manager asks for: show, daemon-reload, enable, disable, start, stop, restart, kill and reset-failed,
of units of Type=simple and oneshot; Restart=always with RestartSec, KillMode=mixed with TimeoutStopSec, start limits,
drop-ins, masks, NeedDaemonReload, and a user's systemd that is there only while XDG_RUNTIME_DIR is. A unit's process
has a keeper, this file as a program, which ends with the process EMULATED_SYSTEMD_OWNER.

It differs from systemd where the tests do not look: there are no jobs (a command does its work itself), no cgroups (the
rest of the process group is killed), no specifiers but %%, no dependencies, and User= is ignored. test_real_systemd.py
runs the same tests with a real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(os.environ.get("EMULATED_SYSTEMD", "/nowhere"))
OWNER = int(os.environ.get("EMULATED_SYSTEMD_OWNER", "1"))
WAIT_S = 20.0
POLL_S = 0.02


class Unit:
    def __init__(self, scope: str, name: str) -> None:
        self.name, self.files = name, ROOT / scope / "units"
        self.loaded, self.state_file = ROOT / scope / "loaded" / name, ROOT / scope / f"{name}.json"
        self.scope = scope

    def texts(self, folder: Path) -> list[str]:
        return [path.read_text() for path in (folder / self.name, *self.drop_ins(folder)) if path.is_file()]

    def drop_ins(self, folder: Path) -> list[Path]:
        return sorted(folder.glob(f"{self.name}.d/*.conf"))

    def settings(self) -> dict[str, str]:
        lines = (line.partition("=") for text in self.texts(self.loaded.parent) for line in text.splitlines())
        return {key: value for key, _, value in lines}

    def state(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads(self.state_file.read_text())
            if found["active"] in ("inactive", "failed") or started(found["keeper"]) == found["since"]:
                return found
        return {"active": "inactive", "pid": 0, "restarts": 0, "code": 0, "status": 0, "at": 0, "result": "success"}

    def write(self, **changes: object) -> None:
        temporary = self.state_file.with_suffix(".new")
        temporary.write_text(json.dumps({**self.state(), **changes}))
        temporary.replace(self.state_file)

    def show(self) -> dict[str, object]:
        file, state = self.files / self.name, self.state()
        masked = file.is_symlink() and os.readlink(file) == "/dev/null"
        loaded = self.loaded.is_file()
        return {
            "LoadState": "masked" if masked else "loaded" if loaded else "not-found",
            "ActiveState": state["active"],
            "Result": state["result"],
            "MainPID": state["pid"],
            "NRestarts": state["restarts"],
            "ExecMainStartTimestampMonotonic": state["at"],
            "ExecMainCode": state["code"],
            "ExecMainStatus": state["status"],
            "ExecStart": self.shown() if loaded else "",
            "FragmentPath": file if loaded or masked else "",
            "DropInPaths": " ".join(map(str, self.drop_ins(self.files))) if loaded else "",
            "NeedDaemonReload": "yes" if loaded and self.texts(self.files) != self.texts(self.loaded.parent) else "no",
        }

    def shown(self) -> str:
        words = self.command()
        return f"{{ path={words[0]} ; argv[]={' '.join(words)} ; ignore_errors=no ; pid=0 }}"

    def command(self) -> list[str]:
        words = [word.replace("%%", "%") for word in shlex.split(self.settings()["ExecStart"])]
        return [words[0].lstrip(":"), *words[1:]]

    def spawn(self) -> subprocess.Popen[bytes]:
        given = [word.replace("%%", "%") for word in shlex.split(self.settings().get("Environment", ""))]
        return subprocess.Popen(
            self.command(),
            cwd="/",
            env=dict(word.split("=", 1) for word in given),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(self) -> int:
        state = self.state()
        if not self.loaded.is_file():
            return fail(f"Unit {self.name} not found.", 5)
        if state.get("limited"):
            return fail(f"Job for {self.name} failed: start request repeated too quickly")
        if state["active"] not in ("inactive", "failed"):
            return 0
        if self.settings()["Type"] == "oneshot":
            return 1 if self.spawn().wait() else 0
        self.state_file.unlink(missing_ok=True)
        words = [sys.executable, "-IS", __file__, "keep", self.scope, self.name]
        subprocess.run(["/bin/sh", "-c", '"$@" > /dev/null 2>&1 &', "sh", *words], start_new_session=True, check=True)
        until(lambda: self.state()["active"] != "inactive")
        return 0

    def stop(self) -> int:
        state = self.state()
        if state["active"] in ("active", "activating"):
            os.kill(state["keeper"], signal.SIGTERM)
            until(lambda: self.state()["active"] in ("inactive", "failed"))
        return 0 if self.loaded.is_file() or state["active"] != "inactive" else 5

    def keep(self) -> None:
        told = False

        def tell(*_: object) -> None:
            nonlocal told
            told = True

        def ending() -> bool:
            return told or not started(OWNER)

        signal.signal(signal.SIGTERM, tell)
        settings, starts, restarts = self.settings(), [], 0
        own = {"keeper": os.getpid(), "since": started(os.getpid())}
        while True:
            starts.append(time.monotonic())
            process = self.spawn()
            now = {"active": "active", "pid": process.pid, "code": 0, "status": 0, "at": time.monotonic_ns() // 1000}
            self.write(**own, **now, restarts=restarts, result="success")
            while process.poll() is None and not ending():
                time.sleep(POLL_S)
            result = end(process, float(settings.get("TimeoutStopSec", 90))) if ending() else "success"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.returncode
            last = {"pid": 0, "code": 2 if code < 0 else 1, "status": abs(code)}
            if ending():
                self.write(**last, active="inactive" if result == "success" else "failed", result=result)
                return
            limit_s, most = float(settings.get("StartLimitIntervalSec", 10)), int(settings.get("StartLimitBurst", 5))
            if limit_s and sum(at > time.monotonic() - limit_s for at in starts) >= most:
                self.write(**last, active="failed", result="exit-code", limited=True)
                return
            self.write(**last, active="activating", result="signal" if code < 0 else "exit-code" if code else "success")
            next_start = time.monotonic() + float(settings.get("RestartSec", 0.1))
            while time.monotonic() < next_start and not ending():
                time.sleep(POLL_S)
            if ending():
                self.write(**last, active="inactive", result="success")
                return
            restarts += 1


def end(process: subprocess.Popen[bytes], seconds: float) -> str:
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "timeout"
    return "success"


def started(pid: int) -> str:
    """When a process was started; empty if it does not run."""
    with contextlib.suppress(OSError):
        if Path("/proc/self/stat").exists():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return "" if fields[0] == "Z" else fields[19]
        os.kill(pid, 0)
        return "runs"
    return ""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(fail("Timeout was reached"))
        time.sleep(POLL_S)


def fail(text: str, code: int = 1) -> int:
    sys.stderr.write(f"{text}\n")
    return code


def daemon_reload(scope: str) -> int:
    if (ROOT / "broken").exists():
        return fail("Failed to reload daemon: Refusing to reload, not enough space available on /run/systemd.")
    loaded = ROOT / scope / "loaded"
    shutil.rmtree(loaded, ignore_errors=True)
    shutil.copytree(ROOT / scope / "units", loaded, ignore=shutil.ignore_patterns("*.wants"), symlinks=True)
    return 0


def enable(unit: Unit, *, on: bool) -> int:
    for link in unit.files.glob(f"*.wants/{unit.name}"):
        link.unlink()
    if on:
        link = unit.files / f"{unit.settings()['WantedBy']}.wants" / unit.name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(unit.files / unit.name)
    return 0


def main() -> int:
    scope = "user" if "--user" in sys.argv else "system"
    words = [word for word in sys.argv[1:] if not word.startswith("--") or "=" in word]
    options = dict(word.split("=", 1) for word in words if word.startswith("--"))
    verb, *names = [word for word in words if not word.startswith("--")]
    if scope == "user" and not Path(os.environ.get("XDG_RUNTIME_DIR", "/nowhere")).is_dir():
        return fail("Failed to connect to bus: No such file or directory")
    (ROOT / scope / "units").mkdir(parents=True, exist_ok=True)
    if verb == "daemon-reload":
        return daemon_reload(scope)
    if verb == "show" and not names:
        sys.stdout.write(f"{ROOT / scope / 'units'}\n")
        return 0
    unit = Unit(scope, names[0])
    if verb == "show":
        found = {key: value for key, value in unit.show().items() if key in options["--property"].split(",")}
        sys.stdout.writelines(f"{key}={value}\n" for key, value in found.items())
    elif verb == "kill":
        if not (pid := unit.state()["pid"]):
            return fail("Failed to kill unit: No main process to kill")
        os.kill(pid, signal.Signals[options["--signal"]])
    elif verb == "reset-failed":
        if unit.state()["active"] == "failed":
            unit.state_file.unlink()
    elif verb in ("enable", "disable"):
        return enable(unit, on=verb == "enable")
    elif verb in ("start", "stop"):
        return unit.start() if verb == "start" else unit.stop()
    elif verb == "restart":
        if unit.state()["active"] != "failed":
            unit.stop()
        return unit.start()
    else:
        return fail(f"Unknown command verb {verb}.")
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        Unit(*sys.argv[2:]).keep()
    else:
        sys.exit(main())
