"""Real sshd servers for tests: each with a host key, a home folder and a tq's state of its own.

A server logs in the user who runs the tests, with HOME and PATH of its own, as sshd's SetEnv sets them. As root it runs
in a mount namespace with its own /run, so that nothing of the machine changes.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.site import free_port
from toolchain.publishing.keyfiles import generate

TQ = Path(__file__).with_name("scripted_tq.sh")
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def unusable() -> str:
    """Why no sshd can be run here; empty: one can."""
    if SSHD is None or not shutil.which("ssh-keygen"):
        return "needs OpenSSH's server"
    if (
        os.geteuid() == 0
        and subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode
    ):
        return "root may make no mount namespace here, and sshd would need /run/sshd"
    return ""


needs_sshd = pytest.mark.skipif(bool(unusable()), reason=unusable())
_CONFIG = """\
Port {port}
ListenAddress {address}
HostKey {folder}/host_key
PidFile {folder}/home/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 50
Subsystem sftp internal-sftp
SetEnv HOME={folder}/home PATH={folder}/bin:/usr/bin:/bin:/usr/sbin:/sbin{environment}
"""


def fingerprint(path: Path) -> str:
    """Of a key, as ssh-keygen shows it."""
    done = subprocess.run(["ssh-keygen", "-lf", path], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


@dataclass
class Server:
    """One sshd, which is a host of a fleet."""

    folder: Path
    address: str = "127.0.0.1"
    port: int = 0
    environment: str = ""
    prefix: Sequence[str] = ()
    """words before sshd's own, as of a network namespace"""
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def make(cls, folder: Path, client: Path, **where: object) -> Server:
        """Prepare one; `client` is the key that may log in."""
        (folder / "home").mkdir(parents=True)
        (folder / "bin").mkdir()
        generate(folder / "host_key")
        shutil.copy(client.with_suffix(".pub"), folder / "authorized_keys")
        server = cls(folder, **where)  # type: ignore[arg-type]
        server.port = server.port or free_port()
        return server

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def state(self) -> Path:
        """Of the scripted tq."""
        return self.home / "state"

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.folder / "host_key")

    @property
    def active(self) -> str:
        """The release that the scripted tq has."""
        path = self.state / "active"
        return path.read_text() if path.exists() else ""

    @property
    def verbs(self) -> list[str]:
        """How the scripted tq was called."""
        path = self.state / "verbs"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def applied(self) -> list[str]:
        """What it installed, one for each time."""
        path = self.state / "applied"
        return path.read_text().splitlines() if path.exists() else []

    def has(self, release: str, settings: str = "", parent: str = "") -> None:
        """Let the scripted tq have installed a release."""
        self.state.mkdir(exist_ok=True)
        for name, text in (("active", release), ("parent", parent), ("settings", settings)):
            (self.state / name).write_text(text)

    def reset(self, release: str) -> None:
        """As it was made, with a release installed; empty: none."""
        for path in self.home.iterdir():
            if path.name != "sshd.pid":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if release:
            self.has(release)

    def does(self, **faults: object) -> None:
        """Give the scripted tq its faults."""
        (self.home / "does").write_text("".join(f"{name}={value}\n" for name, value in faults.items()))

    def start(self) -> Server:
        """Run it; returns once it answers."""
        assert SSHD
        config = self.folder / "sshd_config"
        config.write_text(_CONFIG.format(folder=self.folder, port=self.port, address=self.address,
                                         environment=self.environment and " " + self.environment))  # fmt: skip
        argv: Sequence[str] = [SSHD, "-D", "-e", "-f", str(config)]
        if os.geteuid() == 0:
            inner = 'mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec "$@"'
            argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", inner, "sh", *argv]
        argv = [*self.prefix, *argv]
        (self.home / "sshd.pid").unlink(missing_ok=True)
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 20
        while not (self.home / "sshd.pid").exists():
            assert self.process.poll() is None, (self.folder / "sshd.log").read_text()
            assert time.monotonic() < deadline, "sshd did not start"
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """End it, with every session."""
        if self.process is not None:
            for child in descendants(self.process.pid):
                kill(child)
            kill(self.process.pid)
            self.process.wait()
            self.process = None

    def cut(self, once: Path) -> None:
        """Kill its sessions, with what runs in them, once a file is there."""
        assert self.process
        while not once.exists():
            time.sleep(0.01)
        listener = int((self.home / "sshd.pid").read_text())
        for child in descendants(listener):
            kill(child)

    def entry(self, name: str, **more: object) -> dict[str, object]:
        """Its lines in an inventory."""
        return {"name": name, "address": self.address, "port": self.port, "user": getpass.getuser(),
                "fingerprint": self.fingerprint} | more  # fmt: skip


def descendants(pid: int) -> list[int]:
    """Processes below one, deepest last."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(pid: int) -> None:
    """SIGKILL, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
