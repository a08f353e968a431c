"""Eight hosts in network namespaces with the real tq, for `rollouts`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deploy.site import Site
from tests.provisioning.publication import Publisher, publishable
from toolchain.build import release as built
from toolchain.core import records
from toolchain.fleet import journal, report
from toolchain.fleet.report import FleetReport
from toolchain.publishing.keyfiles import generate
from toolchain.service.emulator import launchctl as client
from toolchain.service.emulator import settings
from toolchain.service.emulator.verbs import STOP_VERB
from toolchain.stages import Release

from .fleets import Fleet
from .namespaces import Namespace, run
from .servers import Server

KINDS = (
    "healthy", "slow", "disk full", "silent", "another key", "unhealthy", "clock wrong", "killed in the middle",
)  # fmt: skip
_WAVES = (1, 1, 2, 2, 2, 3, 3, 3)
_SICK = """\
# A host can make this release sick: the file sick has its version and how. late: it ends once tq's apply is done.
import os, sys, threading, time
home = os.path.realpath(__file__).partition("/turboquant/")[0]  # HOME is the account's
try:
    version, how = open(home + "/sick").read().split()
except (OSError, ValueError):
    version, how = "", ""
def fall_ill():
    while os.path.exists(home + "/turboquant/journal.json"):
        time.sleep(0.1)
    open(home + "/ill", "a").close()
    os._exit(1)
if version == {version!r}:
    if how == "at-once" or os.path.exists(home + "/ill"):
        sys.exit(1)
    if how == "slow":
        time.sleep(4)
    if how == "late":
        threading.Thread(target=fall_ill, daemon=True).start()
"""


@dataclass
class LabHost:
    """One of them."""

    server: Server
    namespace: Namespace
    fingerprint: str
    starts: int = 0

    @property
    def home(self) -> Path:
        return self.server.home

    @property
    def prefix(self) -> Path:
        return self.home / "turboquant"

    @property
    def active(self) -> str:
        """The release that its service has."""
        link = self.prefix / "current"
        return Path(os.readlink(link)).name if link.is_symlink() else ""

    def sick(self, release: str, how: str) -> None:
        """Make a release sick here; empty: none."""
        (self.home / "ill").unlink(missing_ok=True)
        (self.home / "sick").write_text(f"{release.rpartition('-')[0]} {how}" if release else "")

    def becomes(self, kind: str, release: str) -> None:
        """Give it the trouble of its kind."""
        match kind:
            case "slow":
                self.sick(release, "slow")
            case "unhealthy":
                self.sick(release, "late")
            case "disk full":
                with contextlib.suppress(OSError), (self.home / "filler").open("wb", buffering=0) as file:
                    while file.write(bytes(4096)):
                        pass
            case "silent":
                self.namespace.silence()
            case "another key":
                self.server.stop()
                for name in ("host_key", "host_key.pub"):
                    (self.server.folder / name).unlink()
                generate(self.server.folder / "host_key")
                self.server.start()
            case "clock wrong":  # models a clock by the `date` that tq calls; ssh-keygen has the true one
                date = self.server.folder / "bin/date"
                date.write_text('#!/bin/sh\nexec /bin/date -d "1 year" "$@"\n')
                date.chmod(0o755)

    def cut_off(self, wait_s: float) -> None:
        """Kill sshd with its sessions in the middle of an apply, as when the Mac is switched off; start it again."""
        mark = self.prefix / "journal.json"
        until = time.monotonic() + 10 * wait_s
        while not mark.exists() and time.monotonic() < until:
            time.sleep(0.02)
        self.server.stop()
        time.sleep(1)
        self.server.start()


@dataclass
class Lab:
    """All of them, with a publication and a controller."""

    folder: Path
    fleet: Fleet
    publisher: Publisher
    workshop: Site
    hosts: dict[str, LabHost] = field(default_factory=dict)
    waves: dict[str, int] = field(default_factory=dict)
    old: str = ""
    new: str = ""

    @classmethod
    def make(cls, folder: Path, rules: dict[str, Any]) -> Lab:
        """Hosts without an installation, and a publication with two releases, whose channel names the first."""
        fleet = Fleet.make(folder)
        publisher = Publisher.make(folder / "publisher")
        shutil.copy(publisher.signers, folder / "allowed_signers")
        (folder / "workshop").mkdir()
        lab = cls(folder, fleet, publisher, Site.make(folder / "workshop"))
        fleet.rollout, fleet.tq = dict(rules), publisher.site.provisioner
        fleet.desired = {
            "channel_url": f"file://{publisher.site.folder}", "stability_s": "0", "health_timeout_s": "40",
            "port": "11434",
        }  # fmt: skip
        lab.old, lab.new = lab._release("1.0.0", 1), lab._release("2.0.0", 2)
        lab.names(lab.old)
        for number, wave in enumerate(_WAVES, 1):
            lab._host(number, wave)
        return lab

    @property
    def rules(self) -> dict[str, Any]:
        return self.fleet.rollout

    def names(self, release: str) -> None:
        """Let the channel name a release."""
        self.publisher.promote(release)

    def apply(self, keep: str, meanwhile: Callable[[], None] | None = None) -> FleetReport:
        """A rollout, whose report is kept."""
        beside = threading.Thread(target=meanwhile) if meanwhile else None
        if beside:
            beside.start()
        found = self.fleet.apply()
        if beside:
            beside.join()
        report.save(found, self.keep(keep))
        return found

    def keep(self, name: str) -> Path:
        """The folder of a report."""
        return self.folder / "reports" / name

    def task(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A task in a process of its own."""
        return self.fleet.task(*words)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """The same, to be killed."""
        with (self.folder / "controller.log").open("ab") as log:
            return subprocess.Popen(
                self.fleet.command(*words), cwd=Path(__file__).parents[2], env=self.fleet.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def has_journal(self) -> bool:
        """Whether there is an unfinished rollout."""
        known = journal.rollouts(self._rollouts)
        return bool(known) and not known[-1].state.end

    def journal(self) -> journal.Journal:
        """Of the newest rollout."""
        return journal.rollouts(self._rollouts)[-1]

    @property
    def _rollouts(self) -> Path:
        return self.folder / "workspace/fleet"

    def all_run(self, release: str) -> bool:
        """Whether every host's service has this release."""
        return {host.active for host in self.hosts.values()} == {release}

    def flatten(self, **rules: Any) -> None:
        """Put all hosts into one wave."""
        for entry in self.fleet.entries:
            entry["wave"] = 1
        self.fleet.rollout |= rules

    def count_starts(self) -> dict[str, int]:
        """How often each host's service was started since the last count."""
        found = {}
        for name, host in self.hosts.items():
            log = host.home / "launchctl.log"
            lines = log.read_text().splitlines() if log.exists() else []
            total = sum(line.split()[0] in ("bootstrap", "kickstart") for line in lines if line)
            found[name], host.starts = total - host.starts, total
        return found

    def close(self) -> None:
        """End all processes, and the mounts."""
        for host in self.hosts.values():
            self._launchctl(host, STOP_VERB)
            host.server.stop()
            host.namespace.close()
            run("umount", "-l", host.home)
        self.workshop.close()

    def _host(self, number: int, wave: int) -> None:
        name, namespace = f"mac-{number}", Namespace.make(number)
        server = Server.make(self.folder / name, self.folder / "client", address=namespace.address, port=22,
                             prefix=namespace.prefix)  # fmt: skip
        run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", server.home)
        root = server.home / "launchd"
        root.mkdir()
        settings.write(root, settings.Settings(owner_pid=os.getpid(), throttle_cap_s=0.2, bootout_delay_s=0.2))
        server.environment = f"{settings.ROOT_VARIABLE}={root}"
        launchctl = server.folder / "bin/launchctl"
        program = shlex.join([sys.executable, "-I", "-S", client.__file__])
        launchctl.write_text(f'#!/bin/sh\necho "$@" >>"$HOME/launchctl.log"\nexec {program} "$@"\n')
        launchctl.chmod(0o755)
        server.start()
        self.hosts[name] = LabHost(server, namespace, server.fingerprint)
        self.waves[name] = wave
        places = {"prefix": f"{server.home}/turboquant", "models": f"{server.home}/models"}
        self.fleet.entries.append(server.entry(name, wave=wave, group=f"group-{1 + number % 2}", desired=places))

    def _launchctl(self, host: LabHost, *words: str) -> None:
        subprocess.run(
            [*host.namespace.prefix, sys.executable, "-I", "-S", client.__file__, *words],
            env={**os.environ, settings.ROOT_VARIABLE: str(host.home / "launchd")},
            check=False, capture_output=True, timeout=60,
        )  # fmt: skip

    def _release(self, version: str, sequence: int) -> str:
        folder = self.workshop.release(version)
        program = folder / "bin/ollama"
        first, _, rest = program.read_text().partition("\n")
        program.write_text(f"{first}\n{_SICK.format(version=version)}{rest}")
        manifest = records.read(folder / built.MANIFEST, Release)
        records.write(folder / built.MANIFEST, dataclasses.replace(manifest, files=built.file_digests(folder)))
        return self.publisher.release(publishable(folder), sequence).id
