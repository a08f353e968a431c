"""What an area examines a machine with: a service, a port and folders of its own, and programs whose output is kept."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..core import process
from ..core.errors import ConfigError, ToolchainError
from ..core.records import record
from ..core.run import Run
from ..service import account, managers
from ..service.launchd import LaunchdManager
from ..stages import Release

LABEL = "io.turboquant.firstrun"
"""label of the service; every other label that a first run loads begins with it"""
FRAMEWORKS = tuple(word for name in ("Foundation", "Metal", "CoreGraphics") for word in ("-framework", name))
"""of a program that asks Metal for the default device: Apple gives none without CoreGraphics"""
NOT_STARTED = -1
_TIMEOUT_S = 60.0


@record
class Evidence:
    """A program's run: its command line, exit code (-1: it could not be started, or took too long), and raw output."""

    command: str
    code: int
    seconds: float
    output: str


@dataclass(kw_only=True)
class Bench:
    """One run's means. `run` has its own label, prefix, port, model store and workspace, all below `folder`.

    Whatever an area makes outside of `folder` (a loaded job, a property list, a process) is undone by a callback on
    `cleanup`, registered before it is made.
    """

    run: Run
    folder: Path
    cleanup: ExitStack
    kept: list[Evidence] = field(default_factory=list)
    """every program that was run, in order"""
    release: Release | None = None
    """what the build area built, for those after it"""
    no_release: str = ""
    """why there is none"""

    @property
    def on_mac(self) -> bool:
        """Whether this is macOS."""
        return sys.platform == "darwin"

    @property
    def emulated(self) -> bool:
        """Whether launchd's emulator stands in for launchd: what it shows says nothing about a Mac."""
        return self.run.config.deploy.service_manager != "launchd"

    @property
    def privileged(self) -> bool:
        """Whether launchd takes the caller for root; the emulator takes it for an ordinary user."""
        return not self.emulated and account.is_root()

    @cached_property
    def manager(self) -> LaunchdManager:
        """launchd or its emulator, for the service of this run. Raises `ConfigError` for another service manager."""
        found = managers.choose(self.run.config.deploy, self.prefix)
        if not isinstance(found, LaunchdManager):
            raise ConfigError("deploy.service_manager: a first run knows launchd and its emulator")
        return found

    @property
    def prefix(self) -> Path:
        """Where this run installs its service."""
        return Path(self.run.config.deploy.prefix)

    def call(
        self,
        argv: Sequence[str | Path],
        *,
        timeout: float = _TIMEOUT_S,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Evidence:
        """Run a program to its end, whatever that is; stdout and stderr as one. Never raises for its failure.

        `cwd` is `folder` unless given.
        """
        started = time.monotonic()
        try:
            done = process.run(argv, timeout=timeout, env=env, cwd=cwd or self.folder, check=False)
            code, output = done.returncode, done.output
            if code == -signal.SIGKILL and done.seconds >= timeout:
                code, output = NOT_STARTED, f"{output}\n[ended after {timeout:g} s, its time limit]\n"
        except ToolchainError as error:
            code, output = NOT_STARTED, error.message
        return self.keep(shlex.join(map(str, argv)), code, time.monotonic() - started, output)

    def keep(self, command: str, code: int, seconds: float, output: str) -> Evidence:
        """Evidence of what was done without a program: `command` says what."""
        seen = Evidence(command=command, code=code, seconds=round(seconds, 3), output=output)
        self.kept.append(seen)
        return seen

    def launchctl(self, *words: str) -> Evidence:
        """Run launchctl, or the emulator's command of the same shape."""
        return self.call((*self.manager.command, *words), env=self.manager.environment)
