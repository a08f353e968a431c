"""A place to deploy to: a prefix with its own launchd emulator and port, and small releases to put there."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.memory import models
from tests.processes import alive
from toolchain.build import release as built
from toolchain.core import config as configuration
from toolchain.core import records
from toolchain.core.config import Config
from toolchain.core.console import Console
from toolchain.deploy import installer
from toolchain.deploy.journal import BEFORE_SWAP, KILL_VARIABLE, JournalEntry
from toolchain.deploy.prefix import Prefix
from toolchain.proofs import Verification
from toolchain.service.emulator import launchctl as client
from toolchain.service.emulator import settings
from toolchain.service.emulator.verbs import STOP_VERB
from toolchain.stages import CacheType, Deployment, Release

TURBO = (CacheType(name="turbo4", block=128, bytes=66),)
_PROGRAM = Path(__file__).with_name("server_program.py")
_FAULTS = Path(__file__).with_name("faults_program.py")
_LLAMA_SERVER = Path(__file__).with_name("llama_server_program.py")
_ROUTER = Path(__file__).with_name("router_program.py")
BUILD = 1
"""build of llama.cpp in every release"""
_CHILDREN = multiprocessing.get_context("forkserver")  # quick: what a deploy imports is there before the fork
_CHILDREN.set_forkserver_preload(["toolchain.deploy.installer", "toolchain.serving.probe_model"])


@dataclass
class Site:
    """One installation under test."""

    folder: Path
    config: Config
    console: Console = field(default_factory=Console)
    interpreter: str = sys.executable
    """of the programs in its releases"""

    @classmethod
    def make(cls, folder: Path, **changes: Any) -> Site:
        """A fresh site. `changes` are settings of the section deploy, over short windows."""
        prefix = folder / "pre & fix"  # a space and an ampersand must survive the shell and XML
        values = {
            "deploy.prefix": str(prefix),
            "deploy.service_manager": "emulator",
            "deploy.port": free_port(),
            "deploy.models": str(folder / "models"),
            "deploy.health_timeout_s": 15,
            "deploy.stability_s": 0.1,
        } | {f"deploy.{key}": value for key, value in changes.items()}
        (folder / "turboquant.yaml").write_text(json.dumps(values))
        root = prefix / "launchd"
        root.mkdir(parents=True, exist_ok=True)
        settings.write(root, settings.Settings(owner_pid=os.getpid(), throttle_cap_s=0.2, bootout_delay_s=0.2))
        return cls(folder, configuration.load(file=folder / "turboquant.yaml", environ={}))

    @property
    def prefix(self) -> Prefix:
        return Prefix.of(self.config)

    @property
    def emulator(self) -> Path:
        """Root of the emulator."""
        return self.prefix.folder / "launchd"

    @property
    def log_file(self) -> Path:
        return self.prefix.logs / "ollama.log"

    def configured(self, **changes: Any) -> Site:
        """The same place under another configuration of the section deploy."""
        return replace(self, config=replace(self.config, deploy=replace(self.config.deploy, **changes)))

    def serving(self, **changes: Any) -> Site:
        """The same place with llama-server as the service, of a small model with a chat template."""
        model = self.folder / "model.gguf"
        if not model.exists():
            models.write(model, models.dense(head_size=128), data=False, extra={"tokenizer.chat_template": "{{ x }}"})
        values = {"serve": "llama-server", "serve_models": (str(model),), "context": 256} | changes
        return self.configured(**values)

    def release(
        self, version: str, *, does: str = "serve", answers: str = "", types: tuple[CacheType, ...] = TURBO
    ) -> Path:
        """Make a release directory whose servers report `answers` and behave as `does` says."""
        folder = self.folder / f"built-{version}"
        (folder / "bin").mkdir(parents=True)
        (folder / "lib/ollama").mkdir(parents=True)
        _program(folder / "bin/ollama", _PROGRAM, self.interpreter)
        _program(folder / "lib/ollama/llama-server", _LLAMA_SERVER, self.interpreter)
        for source in (_FAULTS, _ROUTER):
            (folder / "lib/ollama" / source.name).write_text(source.read_text())
        behaviour = {
            "does": does,
            "answers": answers or version,
            "types": {kind.name: kind.bytes / kind.block for kind in types},
            "build": answers or BUILD,
        }
        (folder / "lib/ollama/behaviour.json").write_text(json.dumps(behaviour))
        (folder / "lib/ollama/libggml.so").symlink_to("libggml.so.0")
        (folder / "lib/ollama/libggml.so.0").write_text("not a library")
        release = Release(
            id="",
            version=version,
            created="2026-01-01T00:00:00+00:00",
            platform="test",
            ollama_commit="0" * 40,
            llama_cpp_commit="1" * 40,
            llama_cpp_build=BUILD,
            series_sha256="2" * 64,
            cache_types=types,
            tools={},
            flags={},
            files=built.file_digests(folder),
        )
        records.write(folder / built.MANIFEST, replace(release, id=built.release_id(release)))
        return folder

    def built(self, name: str) -> Path:
        """The directory that an installed release was made from."""
        return next(path for path in self.folder.glob("built-*") if identifier(path) == name)

    def install(self, release: Path) -> Deployment:
        """Install a release on a verification that proves it."""
        return install(release, self.config, self.console)

    def status(self) -> Deployment:
        return installer.status(self.config, self.console)

    @contextmanager
    def child(self, operation: Callable[..., object], *arguments: Any, kill_at: str = "") -> Iterator[BaseProcess]:
        """Run an operation of the installer in a process of its own, which dies at the step `kill_at`."""
        with running(_CHILDREN.Process(target=_run, args=(operation, arguments, kill_at))) as process:
            yield process

    def killed(self, operation: Callable[..., object], *arguments: Any, at: str) -> None:
        """Run an operation in a child that must die at the step `at`, with the journal left behind."""
        with self.child(operation, *arguments, kill_at=at) as process:
            process.join(60)
            assert process.exitcode == -signal.SIGKILL
        assert records.read(self.prefix.journal, JournalEntry).step == at

    def assert_upgrade_survives(self, operation: Callable[..., object], release: Path, *, at: str) -> None:
        """An install that dies at a step ends with the old release or the new one, healthy and whole."""
        old = self.status()
        self.killed(operation, release, self.config, at=at)
        after = self.status()
        assert after.active == (old.active if at in BEFORE_SWAP else identifier(release))
        assert after.healthy
        assert alive(after.pid)
        self.assert_clean()

    def launchctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return launchctl(self.emulator, *words)

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds."""
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def assert_clean(self) -> None:
        """Nothing half done: no journal, only known releases, and `current` names one of them."""
        deployment = self.status()
        there = sorted(path.name for path in self.prefix.releases.iterdir()) if self.prefix.releases.is_dir() else []
        assert there == sorted(deployment.releases)
        assert not self.prefix.journal.exists()
        assert sorted(path.name for path in self.prefix.folder.glob("current*")) == ["current"] * bool(there)
        for name in there:
            built.check(self.prefix.release(name))
            assert (self.prefix.release(name) / "environment").is_file()

    def close(self) -> None:
        """Stop the emulator and everything in it."""
        self.launchctl(STOP_VERB)


@contextmanager
def running(process: BaseProcess) -> Iterator[BaseProcess]:
    """Start a process, and kill it afterwards if it still runs."""
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def install(release: Path, config: Config, console: Console) -> Deployment:
    """Install a release on a verification that proves it; of a folder that is no release there is none."""
    proven = verification(release) if (release / built.MANIFEST).is_file() else None
    return installer.install(release, config, console, proven)


def verification(release: Path, *, ok: bool = True, seconds: float = 1.0) -> Verification:
    """What `verify` writes of a release, in short."""
    stated = records.read(release / built.MANIFEST, Release)
    return Verification(
        release=stated.id,
        content_sha256=built.content_digest(stated),
        version=stated.version,
        proofs=(),
        unknown_type_message="",
        ok=ok,
        seconds=seconds,
    )


def _run(operation: Callable[..., object], arguments: tuple[Any, ...], kill_at: str) -> None:
    os.environ[KILL_VARIABLE] = kill_at
    operation(*arguments, Console())


def launchctl(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call the emulator at `root`."""
    return subprocess.run(
        [sys.executable, "-I", "-S", client.__file__, *words],
        env={**os.environ, settings.ROOT_VARIABLE: str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def identifier(release: Path) -> str:
    """The id in a release directory's manifest."""
    return records.read(release / built.MANIFEST, Release).id


def free_port() -> int:
    """A TCP port of the loopback that is free right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_file(path: Path) -> None:
    """Wait until a file exists."""
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.005)


def _program(path: Path, source: Path, interpreter: str) -> None:
    path.write_text(f"#!{interpreter} -IBS\n{source.read_text()}")
    path.chmod(0o755)
