"""The service of a first run: operations on it as tasks of `./inv`, and what it is after them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .. import deploy
from ..core import records
from ..core.config import Config
from ..core.console import Console
from ..core.errors import ToolchainError
from ..deploy.journal import KILL_VARIABLE, JournalEntry
from ..deploy.prefix import Prefix
from ..service.emulator import settings as emulator
from ..stages import Deployment
from . import leftovers, toolkit
from .bench import Bench, Evidence
from .toolkit import Answer

_STABILITY_S = 1.0
"""for operations that are killed: what they restore was found healthy before"""
_COMES_BACK_S = 60.0
_POLL_S = 0.25
_THROTTLE_S = 0.5
_LINES = "400"


@dataclass(frozen=True)
class Service:
    """The bench's own service."""

    bench: Bench

    @property
    def config(self) -> Config:
        """The bench's settings; what was not verified, which another area says, is installed all the same."""
        settings = replace(self.bench.run.config.deploy, allow_unverified=True)
        return replace(self.bench.run.config, deploy=settings)

    @property
    def brief(self) -> Config:
        """The same with a short watch after each start."""
        return replace(self.config, deploy=replace(self.config.deploy, stability_s=_STABILITY_S))

    @property
    def prefix(self) -> Prefix:
        """Where it is installed."""
        return Prefix.of(self.config)

    @property
    def definition(self) -> Path:
        """The file that the manager reads."""
        return self.bench.manager.plist

    def task(self, *words: str, kill_at: str = "") -> Answer:
        """A task on it, which dies at a step if that is named."""
        env = {KILL_VARIABLE: kill_at} if kill_at else {}
        return toolkit.task(self.bench, *words, config=self.brief if kill_at else self.config, env=env)

    def install(self, release: str) -> Answer:
        """Install a release, whose health is watched as long as the settings say."""
        return self.task("deploy.install", "--release", release)

    def status(self) -> Deployment:
        """What it is now, without a process of its own."""
        try:
            return deploy.status(self.brief, Console())
        except ToolchainError as error:
            return _unknown(self.prefix, error.message)

    def told(self) -> tuple[Deployment, Evidence]:
        """What a user is told that it is, after what was interrupted was finished or undone."""
        answer = toolkit.task(self.bench, "deploy.status", config=self.brief)
        return self.after(answer), answer.evidence

    def after(self, answer: Answer) -> Deployment:
        """What it is according to a task on it."""
        reason = answer.complaint or "the task printed no state"
        return answer.read(Deployment) or _unknown(self.prefix, reason)

    def await_health(self, condition: Callable[[Deployment], bool]) -> tuple[Deployment, Evidence]:
        """What it is once it is healthy and the condition holds, or after a minute."""
        deadline = time.monotonic() + _COMES_BACK_S
        while True:
            found, evidence = self.told()
            if (found.healthy and condition(found)) or time.monotonic() > deadline:
                return found, evidence
            time.sleep(_POLL_S)

    def log(self) -> Evidence:
        """The end of its log."""
        files = [str(path) for path in sorted(self.prefix.logs.glob("*.log"))]
        return self.bench.call(["tail", "-n", _LINES, *(files or ["/dev/null"])])

    def quicken(self) -> None:
        """Have an emulator start what crashes at once, unlike launchd."""
        if self.bench.emulated:
            root = self.prefix.folder / "launchd"
            emulator.write(root, replace(emulator.read(root), throttle_cap_s=_THROTTLE_S))

    def died_at(self, step: str) -> bool:
        """Whether the journal says that an operation died at a step."""
        with contextlib.suppress(ToolchainError):
            return records.read(self.prefix.journal, JournalEntry).step == step
        return False

    def problems(self, after: Deployment, allowed: set[str]) -> Iterator[str]:
        """What is wrong with it, of which one of the releases `allowed` is to be active; empty: none."""
        if after.active not in allowed:
            yield f"{after.active or 'nothing'} is active"
        if after.active and not after.healthy:
            yield f"unhealthy: {after.reason}"
        if after.active:
            yield from leftovers.of_deploy(self.prefix, after)
        else:
            yield from leftovers.of_uninstall(self.prefix, self.definition)

    def remove(self) -> None:
        """Leave no service."""
        if self.prefix.is_used() or self.definition.exists() or self.prefix.shim.exists():
            self.task("deploy.uninstall")


def _unknown(prefix: Prefix, reason: str) -> Deployment:
    return Deployment(
        prefix=prefix.folder, active="", parent="", version="", pid=0, healthy=False, releases=(), reason=reason
    )
