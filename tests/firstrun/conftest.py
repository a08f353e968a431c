from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.firstrun import belongings, engine
from toolchain.firstrun.bench import Bench
from toolchain.service.emulator import settings


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """With a workspace that does not exist yet."""
    file = tmp_path / "turboquant.yaml"
    file.touch()
    flags = {"workspace": str(tmp_path / "workspace"), "deploy.service_manager": "emulator"}
    return Run(config=load(file=file, environ={}, flags=flags), console=Console())


@pytest.fixture
def bench(run: Run) -> Iterator[Bench]:
    """As an area gets it; its emulator has short times."""
    with belongings.held(run.config) as own, ExitStack() as cleanup:
        made = Bench(run=engine.configured(run, own), folder=own.run, cleanup=cleanup)
        short = settings.read(made.prefix / "launchd")
        settings.write(made.prefix / "launchd", replace(short, owner_pid=os.getpid(), bootout_delay_s=0.0))
        yield made
