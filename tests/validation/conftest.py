"""A release whose programs are server_program.py, a model, and trials of them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.verify.conftest import stated
from toolchain.build import content_digest
from toolchain.core import records
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.proofs import Verdict, Verification
from toolchain.serving.probe_model import write_probe
from toolchain.stages import CacheType, Release
from toolchain.validation import validation
from toolchain.validation.plan import Plan
from toolchain.validation.sides import Sides
from toolchain.validation.store import Store
from toolchain.validation.trial import Trial

ROOT = Path(__file__).parents[2]
TYPES = (
    CacheType(name="turbo4", block=64, bytes=34, db=23.7),
    CacheType(name="turbo3", block=64, bytes=26, db=17.5),
    CacheType(name="turbo2", block=64, bytes=18, db=11.4),
)
CONTEXT = 4096


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of `write_model`."""
    path = tmp_path_factory.mktemp("model") / "probe.gguf"
    write_model(path)
    return path


def write_release(workspace: Path) -> Release:
    """A verified release in a workspace, whose programs are the double."""
    folder = workspace / "releases" / "9.9.9-turbo1-abc"
    command = shlex.join([sys.executable, "-m", "tests.validation.server_program"])
    for name in ("bin/ollama", "lib/ollama/llama-server"):
        program = folder / name
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {command} "$@"\n')
        program.chmod(0o755)
    release = stated(folder.name, TYPES)
    records.write(folder / "manifest.json", release)
    proof = Verification(
        release=release.id,
        content_sha256=content_digest(release),
        version=release.version,
        proofs=(),
        checklist=(Verdict(number=1, name="rotation", ok=True, evidence="seen"),),
        unknown_type_message="unknown",
        ok=True,
        seconds=1,
    )
    records.write(workspace / "runs" / release.id / "verification.json", proof)
    return release


def write_model(path: Path) -> None:
    """A real GGUF of 4 layers with 1 head of 64 for K and V, trained on 4096 tokens; nobody computes with it."""
    write_probe(path, head_size=64, heads=2, kv_heads=1, layers=4, context=CONTEXT, seed=1)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Settings with a workspace that has one verified release."""
    workspace = tmp_path / "workspace"
    write_release(workspace)
    return Run(config=load(environ={}, flags={"workspace": str(workspace)}), console=Console())


MakePlan = Callable[..., Plan]
MakeTrial = Callable[[Plan], Trial]


@pytest.fixture
def make_plan(run: Run, model: Path) -> MakePlan:
    """Plans of f16 against turbo4 on that model; keywords as for `validation.make_plan`."""

    def made(**given: object) -> Plan:
        usual = {"model": str(model), "candidate": "turbo4", "baseline": "f16", "tests": [], "contexts": [2048]}
        return validation.make_plan(run, **{**usual, "backend": "llama-server", "release": "", **given})  # type: ignore[arg-type]

    return made


@pytest.fixture
def make_trial(run: Run, tmp_path: Path) -> Iterator[MakeTrial]:
    """A trial for a plan; its servers are stopped at the end. A second one of the same plan finds what is kept."""
    opened: list[Sides] = []

    def made(plan: Plan) -> Trial:
        release = records.read(plan.release_dir / "manifest.json", Release) if plan.release_dir else None
        store = Store(tmp_path / "validation" / plan.id)
        opened.append(Sides(plan, release, store, run.config))
        return Trial(
            plan=plan,
            store=store,
            sides=opened[-1],
            config=run.config,
            console=run.console,
            workspace=run.workspace,
            added=TYPES,
        )

    yield made
    for one in opened:
        one.close()
