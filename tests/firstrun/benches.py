"""A bench on the miniature upstream, built once in a run of the suite; each test gets a copy that it may change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from tests.deploy.site import free_port, launchctl
from tests.shared import Miniatures, once
from toolchain import pipeline
from toolchain.build import load
from toolchain.core.config import Config
from toolchain.core.run import Run
from toolchain.firstrun.bench import Bench
from toolchain.rehearsal import miniature
from toolchain.service.emulator import settings
from toolchain.service.emulator.verbs import STOP_VERB
from toolchain.stages import Release


@contextmanager
def built(factory: pytest.TempPathFactory, miniatures: Miniatures) -> Iterator[Run]:
    """A run in whose workspace a release was built, for one user at a time. Its path is in what was built."""

    def make(folder: Path) -> None:
        run = miniatures.run(folder, miniatures.plain(folder / "upstream"))
        found = pipeline.prepare(run)
        pipeline.build(run, found, pipeline.render_series(run, found))

    folder = once(factory, "firstrun", make)
    upstream = miniature.Miniature(ollama=folder / "upstream" / "ollama", llama_cpp=folder / "upstream" / "llama.cpp")
    with FileLock(folder.with_suffix(".used")):
        yield miniatures.run(folder, upstream)


@contextmanager
def bench(folder: Path, run: Run, release: Release | None = None) -> Iterator[Bench]:
    """A bench in `folder` with a service of its own; everything ends with it."""
    prefix = folder / "pre fix"
    (prefix / "launchd").mkdir(parents=True)
    settings.write(
        prefix / "launchd", settings.Settings(owner_pid=os.getpid(), throttle_cap_s=0.1, bootout_delay_s=0.1)
    )
    try:
        with ExitStack() as cleanup:
            yield Bench(run=_served(run, prefix, folder), folder=folder, cleanup=cleanup, release=release)
    finally:
        launchctl(prefix / "launchd", STOP_VERB)


def release_of(run: Run) -> Release:
    """The release in its workspace."""
    (manifest,) = (run.workspace / "releases").glob("*-turbo1-*/manifest.json")
    return load(manifest.parent)


def _served(run: Run, prefix: Path, folder: Path) -> Run:
    config: Config = run.config
    deploy = replace(
        config.deploy,
        prefix=str(prefix),
        label="io.turboquant.firstrun",
        service_manager="emulator",
        models=str(folder / "models"),
        port=free_port(),
        stability_s=0.2,
        health_timeout_s=60.0,
    )
    return Run(config=replace(config, deploy=deploy), console=run.console)
