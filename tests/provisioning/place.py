"""A Mac under test: a prefix with its own emulator of launchd, a publication, and tq with its desired-state file."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.deploy.site import Site
from toolchain.provisioning import tq
from toolchain.service.emulator import launchctl as client
from toolchain.service.emulator import settings

from .publication import Publisher, publishable

TIMEOUT_S = 120.0


@dataclass
class Said:
    """What tq printed and how it ended."""

    code: int
    json: dict[str, Any]
    log: str

    @property
    def what(self) -> list[str]:
        """What differs, or was changed."""
        return [one["what"] for one in self.json["changes"]]


@dataclass
class Mac:
    """`site` is what deploy sees of the same prefix."""

    site: Site
    publisher: Publisher
    shell: Sequence[str] = ("sh",)
    desired: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, *, shell: Sequence[str] = ("sh",), **changes: str) -> Mac:
        """With a publication and nothing installed; `changes` are keys of the desired state."""
        site = Site.make(folder)
        mac = cls(site, Publisher.make(folder / "publication"), shell)
        (folder / "bin").mkdir()
        launchctl = folder / "bin/launchctl"
        launchctl.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-I", "-S", client.__file__])} "$@"\n')
        launchctl.chmod(0o755)
        mac.tq.write_bytes(tq.render())
        mac.want(
            channel_url=f"file://{mac.publisher.site.folder}",
            signers=str(mac.publisher.signers),
            prefix=str(site.prefix.folder),
            port=str(site.config.deploy.port),
            models=site.config.deploy.models,
            health_timeout_s="15",
            stability_s="0",
            **changes,
        )
        return mac

    @property
    def tq(self) -> Path:
        return self.site.folder / "tq"

    @property
    def prefix(self) -> Path:
        return self.site.prefix.folder

    @property
    def desired_file(self) -> Path:
        return self.site.folder / "desired"

    def want(self, **changes: str | None) -> None:
        """Change keys of the desired state; None takes one away."""
        self.desired = {key: value for key, value in {**self.desired, **changes}.items() if value is not None}
        self.desired_file.write_text("".join(f"{key}={value}\n" for key, value in self.desired.items()))

    def release(self, version: str, sequence: int, **changes: Any) -> str:
        """Make and publish a small release; returns its id."""
        kinds = {key: changes.pop(key) for key in ("does", "answers", "types") if key in changes}
        return self.publisher.release(publishable(self.site.release(version, **kinds)), sequence, **changes).id

    def environment(self, **further: str) -> dict[str, str]:
        path = f"{self.site.folder / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, settings.ROOT_VARIABLE: str(self.site.emulator), **further}

    def words(self, verb: str) -> list[str]:
        return [*self.shell, str(self.tq), verb, "--json", "--desired", str(self.desired_file)]

    def start(self, verb: str, **further: str) -> subprocess.Popen[str]:
        """Start it in a process group of its own."""
        return subprocess.Popen(
            self.words(verb),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment(**further),
            start_new_session=True,
        )  # fmt: skip

    def run(self, verb: str, *, expect: int | None = None, **further: str) -> Said:
        """Run a verb, and hold its exit code against `expect`."""
        with self.start(verb, **further) as process:
            out, err = process.communicate(timeout=TIMEOUT_S)
        said = Said(process.returncode, json.loads(out) if out else {}, err)
        assert expect is None or said.code == expect, f"{said.code}, not {expect}:\n{err}\n{out}"
        assert not out or said.json["exit_code"] == said.code
        return said

    def configured(self) -> Site:
        """deploy's configuration for the same desired state."""
        known = {"stability_s": float, "health_timeout_s": float, "keep": int, "log_mb": int, "log_files": int}
        changes: dict[str, Any] = {
            key: known.get(key, str)(value)
            for key, value in self.desired.items()
            if key in {*known, "kv_cache_type", "models", "label", "host"}
        }
        further = {key.removeprefix("env."): value for key, value in self.desired.items() if key.startswith("env.")}
        config = replace(self.site.config.deploy, **changes, environment=further)
        return replace(self.site, config=replace(self.site.config, deploy=config))

    def close(self) -> None:
        self.site.close()
