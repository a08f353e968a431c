"""A fleet for tests: servers, an inventory of them, a channel, and a controller."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from toolchain.core import config as configuration
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.fleet import controller
from toolchain.fleet.report import FleetReport
from toolchain.publishing.keyfiles import generate

from .servers import TQ, Server

ROOT = Path(__file__).parents[2]
QUICK = {
    "min_healthy_time": "0.2s", "healthy_deadline": "4s", "progress_deadline": "20s", "stagger": 0, "poll": "50ms",
    "connect_timeout": 5,
}  # fmt: skip
OLD, NEW = "release-1", "release-2"


@dataclass
class Fleet:
    """Servers in waves."""

    folder: Path
    servers: dict[str, Server] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    rollout: dict[str, Any] = field(default_factory=lambda: dict(QUICK))
    desired: dict[str, Any] = field(default_factory=dict)
    tq: Path = TQ
    workspace: Path | None = None

    @classmethod
    def make(cls, folder: Path) -> Fleet:
        """One without hosts, whose channel names OLD."""
        folder.mkdir(parents=True, exist_ok=True)
        generate(folder / "client")
        (folder / "allowed_signers").write_text("publisher ssh-ed25519 AAAA\n")
        fleet = cls(folder)
        fleet.names(OLD)
        return fleet

    def names(self, release: str) -> None:
        """Let the channel name a release."""
        path = self.folder / "publication/channels/stable"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(release)

    def host(self, name: str, wave: int = 1, *, started: bool = True, has: str = OLD, **more: Any) -> Server:
        """Another host, which has a release installed."""
        server = Server.make(self.folder / name, self.folder / "client")
        if has:
            server.has(has)
        if started:
            server.start()
        self.servers[name] = server
        self.entries.append(server.entry(name, wave=wave, **more))
        return server

    def write(self) -> Path:
        """The inventory."""
        data = {
            "tq": str(self.tq), "signers": "allowed_signers", "rollout": self.rollout,
            "defaults": {
                "key": "client", "desired": {"channel_url": f"file://{self.folder}/publication", **self.desired}
            },
            "hosts": self.entries,
        }  # fmt: skip
        path = self.folder / "inventory.yaml"
        text = yaml.safe_dump(data, sort_keys=False)
        if not path.exists() or path.read_text() != text:  # a controller may be reading it
            path.write_text(text)
        return path

    def run(self) -> Run:
        """What a task gets."""
        flags = {"workspace": str(self.workspace or self.folder / "workspace"), "fleet.inventory": str(self.write())}
        return Run(config=configuration.load(file=None, environ={}, flags=flags), console=Console())

    def portable(self) -> Fleet:
        """This fleet without its processes, for another process."""
        return dataclasses.replace(self, servers={})

    def apply(self, release: str = "", **more: Any) -> FleetReport:
        """A rollout."""
        return controller.apply(self.run(), release, **more)

    @property
    def environment(self) -> dict[str, str]:
        """Of a task."""
        return {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": str(self.folder)}

    def command(self, *words: str) -> list[str]:
        """A task in a process of its own."""
        workspace = str(self.workspace or self.folder / "workspace")
        named = () if words[0] == "fleet.report" else ("--inventory", str(self.write()))
        return [sys.executable, "-P", "-c", "import tasks; tasks.start()", *words, *named, "--workspace", workspace]

    def task(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a task to its end."""
        return subprocess.run(
            self.command(*words), cwd=ROOT, capture_output=True, text=True, timeout=1200, env=self.environment
        )

    def close(self) -> None:
        """Stop all servers."""
        for server in self.servers.values():
            server.stop()


def outcomes(report: FleetReport) -> dict[str, str]:
    """Host to outcome, and how it went back."""
    return {one.name: f"{one.outcome} {one.revert}".strip() for wave in report.waves for one in wave.hosts}
