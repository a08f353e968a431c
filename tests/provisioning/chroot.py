"""tq on a bare Debian with sh (dash), curl, tar and openssh-client alone: how long each verb takes.

    debootstrap --variant=minbase --include=curl,openssh-client bookworm ROOT
    unshare --mount python -m tests.provisioning.chroot ROOT RELEASE PARENT

RELEASE and PARENT are directories of real releases: PARENT is installed first. The emulator runs outside, since it is
Python. Inside, `launchctl` is a few lines of sh that hand the call over a fifo; the bridge here asks the emulator,
whose jobs are started in the root by chroot(8). A web server outside serves the publication.
"""

from __future__ import annotations

import contextlib
import json
import os
import plistlib
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.deploy.site import free_port
from tests.publishing.server import serving
from toolchain.provisioning import tq
from toolchain.service.emulator import launchctl, settings
from toolchain.service.emulator.verbs import STOP_VERB

from .publication import Publisher

_CHROOT = "/usr/sbin/chroot"
_LAUNCHD = "/srv/launchd"
_DRIFTS = {
    "environment edited": "sed -i s/ATTENTION=1/ATTENTION=0/ current/environment",
    "binary changed": "cp -p current/bin/ollama /srv/o; echo x >> /srv/o; mv /srv/o current/bin/ollama",
    "library missing": "rm current/lib/ollama/libggml-base.so.0",
    "plist edited": "sed -i s/Interactive/Background/ /srv/launchd/LaunchAgents/*.plist",
    "shim edited": "echo exit >> bin/turboquant-ollama",
    "link changed": "ln -sfn releases/OLDER current",
    "unloaded": "launchctl bootout gui/0/io.turboquant.ollama; sleep 2",
    "models folder missing": "mv /srv/models /srv/gone",
    "state damaged": "echo '{' > state.json",
}
_CLIENT = """#!/bin/sh
# Hands a call to the emulator outside, and gives its answer.
call=$(mktemp -d /srv/calls/XXXXXX) || exit 1
mkfifo "$call/code"
printf '%s\\n' "$@" > "$call/words"
echo "$call" > /srv/calls/new
read -r code < "$call/code"
cat "$call/out" && cat "$call/err" >&2
rm -rf "$call"
exit "$code"
"""


class Bridge(threading.Thread):
    """Answers the calls of launchctl in `root` by the emulator whose folder is ROOT/srv/launchd."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root = root
        self.calls = root / "srv/calls"
        self.emulator = root / _LAUNCHD.lstrip("/")
        for folder in (self.calls, self.emulator / "LaunchAgents", root / "srv/jobs"):
            folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self.calls / "new")
        client = root / "usr/local/bin/launchctl"
        client.write_text(_CLIENT)
        client.chmod(0o755)
        settings.write(self.emulator, settings.Settings(owner_pid=os.getpid()))
        os.chdir(self.emulator)

    def run(self) -> None:
        """Answer until the process ends."""
        while True:
            for line in (self.calls / "new").read_text().splitlines():
                threading.Thread(target=self._answer, args=(self.root / line.lstrip("/"),)).start()

    def ask(self, *words: str) -> dict[str, Any]:
        """Ask the emulator."""
        answer = launchctl._ask(list(words))
        assert answer, "the emulator does not answer"
        return answer

    def _answer(self, call: Path) -> None:
        words = (call / "words").read_text().splitlines()
        answer = self.ask(*(self._outside(word) if word.endswith(".plist") else word for word in words))
        text = "\n".join(self._inside(line) for line in answer["stdout"].split("\n"))
        (call / "out").write_text(text)
        (call / "err").write_text(answer["stderr"])
        (call / "code").write_text(f"{answer['code']}\n")

    def _outside(self, plist: str) -> str:
        """A copy of a property list whose job is started in the root."""
        job = plistlib.loads((self.root / plist.lstrip("/")).read_bytes())
        job["ProgramArguments"] = [_CHROOT, str(self.root), *job["ProgramArguments"]]
        for key in ("StandardOutPath", "StandardErrorPath"):
            job[key] = f"{self.root}{job[key]}"
        self.program = job["ProgramArguments"][2]
        copy = self.root / "srv/jobs" / Path(plist).name
        copy.write_bytes(plistlib.dumps(job))
        copy.chmod(0o644)
        return str(copy)

    def _inside(self, line: str) -> str:
        return f"\tprogram = {self.program}" if line == f"\tprogram = {_CHROOT}" else line


class Machine:
    """The root with tq and its desired state."""

    def __init__(self, root: Path, publisher: Publisher, url: str) -> None:
        self.root, self.publisher = root, publisher
        for name in ("etc/turboquant", "opt", "srv"):
            (root / name).mkdir(exist_ok=True)
        (root / "usr/local/bin/tq").write_bytes(tq.render())
        shutil.copy(publisher.signers, root / "etc/turboquant/allowed_signers")
        desired = {
            "channel_url": url, "prefix": "/opt/turboquant", "port": str(free_port()), "models": "/srv/models",
            "stability_s": "2", "health_timeout_s": "120",
        }  # fmt: skip
        (root / "etc/turboquant/desired").write_text("".join(f"{key}={value}\n" for key, value in desired.items()))

    def shell(self, command: str) -> None:
        """Run a command inside."""
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", settings.ROOT_VARIABLE: _LAUNCHD}
        words = [_CHROOT, str(self.root), "/bin/sh", "-euc", f"cd /opt/turboquant; {command}"]
        subprocess.run(words, env=environment, check=True, capture_output=True, timeout=60)

    def run(self, verb: str, expect: int) -> float:
        """Run a verb inside; the seconds that it took."""
        words = [_CHROOT, str(self.root), "/bin/sh", "/usr/local/bin/tq", verb, "--json"]
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", settings.ROOT_VARIABLE: _LAUNCHD}
        begun = time.monotonic()
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
        took = time.monotonic() - begun
        said = json.loads(done.stdout)
        what = ", ".join(one["what"] for one in said["changes"]) or "nothing"
        print(f"| {verb} | {done.returncode} | {took:.2f} | {what} | {said['release']} |", flush=True)  # noqa: T201
        assert done.returncode == expect, done.stderr
        return took


def main(root: Path, newer: Path, older: Path) -> None:
    """Install, install again, look, upgrade, roll back, damage and repair, remove; print the times."""
    work = root.parent / f"{root.name}-publication"
    shutil.rmtree(work, ignore_errors=True)
    for name in ("opt/turboquant", "srv"):
        shutil.rmtree(root / name, ignore_errors=True)
    publisher = Publisher.make(work)
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    ids = [publisher.release(folder, sequence).id for sequence, folder in enumerate((older, newer), 1)]
    look = "readlink /bin/sh; ls /usr/bin | wc -l; command -v python3 git cc || echo no python3, git or cc"
    there = subprocess.run([_CHROOT, root, "/bin/sh", "-c", look], capture_output=True, text=True)
    print(there.stdout)  # noqa: T201
    with serving(publisher.site.folder) as url:
        machine, bridge = Machine(root, publisher, url), Bridge(root)
        bridge.start()
        try:
            print("| verb | code | seconds | changes | active |\n|---|---|---|---|---|")  # noqa: T201
            publisher.promote(ids[0])
            machine.run("plan", 10)
            machine.run("apply", 10)
            machine.run("apply", 0)
            machine.run("status", 0)
            publisher.promote(ids[1])
            machine.run("status", 20)
            machine.run("apply", 10)
            machine.run("apply", 0)
            machine.run("rollback", 10)
            machine.run("status", 20)
            machine.run("apply", 10)
            for name, command in _DRIFTS.items():
                print(f"| {name} | | | | |")  # noqa: T201
                machine.shell(command.replace("OLDER", ids[0]))
                machine.run("status", 20)
                machine.run("apply", 10)
            machine.run("apply", 0)
            publisher.promote(ids[1], sequence=1)
            print("| an older statement | | | | |")  # noqa: T201
            machine.run("status", 20)
            machine.run("apply", 36)
            publisher.promote(ids[1])
            machine.run("status", 0)
            machine.run("uninstall", 10)
            machine.run("status", 21)
        finally:
            with contextlib.suppress(AssertionError):
                bridge.ask(STOP_VERB)


if __name__ == "__main__":
    main(*(Path(word).resolve() for word in sys.argv[1:]))
