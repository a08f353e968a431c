"""A Mac's day on the emulator, told as a transcript: what is done, and what deploy says of it.

    python -m tests.deploy.sessions        prints every scenario of `SCENARIOS`

The tests in `test_sessions.py` run the same scenarios. Every look at the service is held against the truth: whatever
answers on its port is reported with its pid, and never more than one process serves.
"""

from __future__ import annotations

import contextlib
import os
import plistlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from toolchain.core import records
from toolchain.core.errors import ToolchainError
from toolchain.deploy import installer
from toolchain.host import ports
from toolchain.service.emulator import settings
from toolchain.service.emulator.verbs import LOGIN_VERB, LOGOUT_VERB, REBOOT_VERB
from toolchain.stages import Deployment
from toolchain.text.dispatch import as_text
from toolchain.text.release import _deployment as _registered  # noqa: F401  as_text knows it once this is imported

from .site import Site

UID = os.getuid()
GUI, USER = f"gui/{UID}", f"user/{UID}"
LABEL = "io.turboquant.ollama"


@dataclass
class Mac:
    """A site whose user comes and goes. `lines` is the transcript."""

    site: Site
    lines: list[str] = field(default_factory=list)
    releases: dict[str, Path] = field(default_factory=dict)

    def screen(self, verb: str) -> None:
        """Log in or out at the screen, or reboot."""
        words = (verb,) if verb == REBOOT_VERB else (verb, str(UID))
        assert self.site.launchctl(*words).returncode == 0
        told = {LOGIN_VERB: "the user logs in at the screen", LOGOUT_VERB: "the user logs out", REBOOT_VERB: "reboot"}
        self.lines.append(f"-- {told[verb]}; loaded in: {', '.join(self.loaded()) or 'nothing'}")

    def loaded(self, label: str = LABEL) -> list[str]:
        """The domains that have the label, as launchctl tells."""
        return [one for one in (GUI, USER, "system") if self.site.launchctl("print", f"{one}/{label}").returncode == 0]

    def install(self, version: str) -> Deployment | ToolchainError:
        """deploy.install of a release of that version."""
        if version not in self.releases:
            self.releases[version] = self.site.release(version)
        return self._run(f"deploy.install {version}", lambda: self.site.install(self.releases[version]))

    def uninstall(self) -> Deployment | ToolchainError:
        """deploy.uninstall."""
        return self._run("deploy.uninstall", lambda: installer.uninstall(self.site.config, self.site.console))

    def status(self) -> Deployment:
        """deploy.status, once one process or none has the port, held against who listens there."""
        self.settle()
        found = self._run("deploy.status", self.site.status)
        assert isinstance(found, Deployment), found
        serving = self.serving()
        assert found.pid in serving if serving else not found.healthy, (found, serving)
        return found

    def serving(self) -> tuple[int, ...]:
        """Who listens on the service's port."""
        found = ports.listeners(self.site.config.deploy.port)
        assert len(found) < 2, found
        return found

    def settle(self) -> None:
        """Wait until the port has been the same process's for a moment, as after a login or an end of one copy."""
        deadline, since, last = time.monotonic() + 15, time.monotonic(), self.serving()
        wait = 0.4 if last else 1.6
        while time.monotonic() - since < wait and time.monotonic() < deadline:
            time.sleep(0.1)
            if (now := self.serving()) != last:
                since, last, wait = time.monotonic(), now, 0.4

    def _run(self, command: str, action: Callable[[], Deployment]) -> Deployment | ToolchainError:
        self.lines.append(f"$ ./inv {command}")
        try:
            found: Deployment | ToolchainError = action()
        except ToolchainError as error:
            found = error
            self._tell(f"exit {error.exit_code}: {error}")
        else:
            assert isinstance(found, Deployment)
            self._tell(as_text(found))
        return found

    def _tell(self, text: str) -> None:
        text = text.replace(str(self.site.prefix.folder), "PREFIX").replace(str(self.site.folder), "HOME")
        text = text.replace(str(self.site.config.deploy.port), "PORT")
        self.lines += [f"  {line}" for line in re.sub(r"\bpid \d+", "pid N", text).splitlines()]


@contextmanager
def mac(folder: Path, *, at_screen: bool) -> Iterator[Mac]:
    """A Mac with nothing installed, whose user is at the screen or comes over SSH."""
    site = Site.make(folder)
    found = Mac(site)
    try:
        if not at_screen:
            found.screen(LOGOUT_VERB)
        yield found
    finally:
        site.close()


def ssh_then_login(folder: Path) -> list[str]:
    """Installed over SSH, then a login at the screen loads it a second time."""
    with mac(folder, at_screen=False) as here:
        here.install("1")
        over_ssh = here.status()
        assert (over_ssh.service, over_ssh.also, over_ssh.healthy) == (f"{USER}/{LABEL}", (), True)
        here.screen(LOGIN_VERB)
        assert here.loaded() == [GUI, USER]
        twice = here.status()
        assert (twice.service, twice.also, twice.healthy) == (f"{USER}/{LABEL}", (f"{GUI}/{LABEL}",), True)
        assert twice.pid == over_ssh.pid  # the login did not disturb it
        runs = here.site.launchctl("print", f"{GUI}/{LABEL}").stdout
        assert "runs = 1" in runs  # the second copy waits; it is not started again and again
        here.install("2")
        assert here.loaded() == [USER]
        assert here.status().healthy
        here.screen(LOGOUT_VERB)
        here.screen(LOGIN_VERB)
        here.site.launchctl("bootout", f"{USER}/{LABEL}")
        here.lines.append(f"-- launchctl bootout {USER}/{LABEL}: the copy that waits takes over")
        assert here.status().service == f"{GUI}/{LABEL}"
        here.site.launchctl("bootstrap", USER, str(here.site.emulator / "LaunchAgents" / f"{LABEL}.plist"))
        here.lines.append(f"-- launchctl bootstrap {USER} {LABEL}.plist")
        again = here.status()
        assert (again.service, again.also) == (f"{GUI}/{LABEL}", (f"{USER}/{LABEL}",))
        gone = here.uninstall()
        assert isinstance(gone, Deployment)
        assert gone.reason == "nothing is installed"
        assert (here.loaded(), here.serving()) == ([], ())
        here.screen(LOGOUT_VERB)
        here.screen(LOGIN_VERB)
        assert here.status().reason == "nothing is installed"
        return here.lines


def reboot(folder: Path) -> list[str]:
    """Installed over SSH; a reboot takes it away, and a login brings it back in another domain."""
    with mac(folder, at_screen=False) as here:
        here.install("1")
        here.screen(REBOOT_VERB)
        assert here.status().reason.startswith("the service is not running: it is loaded nowhere")
        here.screen(LOGIN_VERB)
        back = here.status()
        assert (back.service, back.also, back.healthy) == (f"{GUI}/{LABEL}", (), True)
        assert isinstance(here.install("2"), Deployment)
        assert here.loaded() == [GUI]
        assert here.status().healthy
        return here.lines


def logout(folder: Path) -> list[str]:
    """Installed at the screen; a logout takes it away, and over SSH it has to be said where it shall be."""
    with mac(folder, at_screen=True) as here:
        here.install("1")
        assert here.status().service == f"{GUI}/{LABEL}"
        here.screen(LOGOUT_VERB)
        assert here.status().reason.startswith("the service is not running: it is loaded nowhere")
        refused = here.install("2")
        assert isinstance(refused, ToolchainError)
        assert refused.exit_code == 57
        assert "gui/" not in refused.hint
        here.lines.append(f"-- deploy.domain: {USER}")
        here.site = here.site.configured(domain=USER)
        assert isinstance(here.install("2"), Deployment)
        assert here.status().service == f"{USER}/{LABEL}"
        here.screen(LOGIN_VERB)
        assert here.status().also == (f"{GUI}/{LABEL}",)
        return here.lines


def state_lost(folder: Path) -> list[str]:
    """state.json is gone, then the whole prefix: the service is found all the same."""
    with mac(folder, at_screen=False) as here:
        here.install("1")
        here.screen(LOGIN_VERB)
        here.site.prefix.state.unlink()
        here.lines.append("-- rm PREFIX/state.json")
        found = here.status()
        assert (found.service, found.also, found.healthy) == (f"{USER}/{LABEL}", (f"{GUI}/{LABEL}",), True)
        for path in (here.site.prefix.current, here.site.prefix.state):
            path.unlink(missing_ok=True)
        shutil.rmtree(here.site.prefix.releases)
        here.lines.append("-- rm -r PREFIX/current PREFIX/releases")
        assert "is loaded, pid" in here.status().reason
        here.site.launchctl("bootout", f"{USER}/{LABEL}")
        here.site.launchctl("bootout", f"{GUI}/{LABEL}")
        while here.loaded():
            time.sleep(0.05)
        here.lines.append("-- launchctl bootout of both; the plist is left")
        assert "would start the service at the next login" in here.status().reason
        here.uninstall()
        assert not list((here.site.emulator / "LaunchAgents").iterdir())
        assert here.status().reason == "nothing is installed"
        return here.lines


def second_ollama(folder: Path) -> list[str]:
    """Homebrew's Ollama, in each domain; then Ollama.app, which no label gives away."""
    with mac(folder, at_screen=True) as here:
        here.site = here.site.configured(port=11434)
        here.screen(LOGIN_VERB)
        for domain in (GUI, USER, "system"):
            with _loaded_elsewhere(here, domain, "homebrew.mxcl.ollama"):
                here.lines.append(f"-- brew services start ollama: loaded in {domain}")
                refused = here.install("1")
                assert isinstance(refused, ToolchainError)
                assert refused.exit_code == 54
                assert f"({domain}/homebrew.mxcl.ollama, pid " in refused.message
                assert here.loaded() == []
        with _ollama_app(here.site.folder):
            here.lines.append("-- open -a Ollama")
            refused = here.install("1")
            assert isinstance(refused, ToolchainError)
            assert refused.message.startswith("Ollama.app is running (pid ")
        assert not here.site.prefix.releases.exists()
        return here.lines


@contextmanager
def _loaded_elsewhere(here: Mac, domain: str, label: str) -> Iterator[None]:
    file = here.site.folder / f"{label}.plist"
    content = {
        "Label": label,
        "RunAtLoad": True,
        "ProgramArguments": ["/bin/sh", "-c", "exec sleep 1000"],
        "LimitLoadToSessionType": ["Aqua", "Background", "System"],
    }
    records.write_bytes(file, plistlib.dumps(content), mode=0o644)
    _root(here.site, True)
    assert here.site.launchctl("bootstrap", domain, str(file)).returncode == 0
    _root(here.site, False)
    try:
        yield
    finally:
        _root(here.site, True)
        here.site.launchctl("bootout", f"{domain}/{label}")
        _root(here.site, False)


def _root(site: Site, on: bool) -> None:
    values = settings.read(site.emulator)
    settings.write(site.emulator, settings.Settings(owner_pid=values.owner_pid, throttle_cap_s=0.2, root=on))


@contextmanager
def _ollama_app(folder: Path) -> Iterator[None]:
    program = folder / "Ollama.app/Contents/MacOS/Ollama"
    program.parent.mkdir(parents=True)
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    process = psutil.Popen([program, "1000"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


SCENARIOS = (ssh_then_login, reboot, logout, state_lost, second_ollama)


def main() -> None:
    """Print the scenarios."""
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="sessions-") as folder, contextlib.redirect_stderr(sys.stdout):
            lines = scenario(Path(folder))
        print(f"\n== {scenario.__doc__}", *lines, sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
