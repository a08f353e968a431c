"""A rehearsal: every stage on the miniature upstream, in one folder, and a release that must be rolled back.

Only upstream is simulated. The stages are the functions that `./inv ship` runs, the build is Ollama's own, the
service is started by the launchd emulator. It needs neither network nor root, and leaves no process behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .. import deploy, pipeline
from ..core.config import load
from ..core.console import Console
from ..core.errors import ConfigError, MissingTool, RolledBack, VerificationFailed
from ..core.records import record, write
from ..core.run import Run
from ..deploy import residents
from ..host import doctor, ports
from ..series import manifest
from ..service.emulator import settings as emulator
from ..stages import Release
from . import miniature

_FAULTY_PART = """
  - concern: fault
    target: llama.cpp
    serves: ">=0"
    edits: llama.cpp/fault.yaml
    why: A fault that shows only when text is generated, for the rehearsal of a rollback.
    until: never meant to last
"""
_FAULTY_EDIT = """
edits:
  - name: decode
    file: src/llama.cpp
    scope: int32_t llama_decode
    position: start
    insert: |
      GGML_ASSERT(n_past < 4);
"""
_END_S = 10.0


@record
class RehearsalStage:
    """A stage that was rehearsed, and how long it took."""

    name: str
    seconds: float
    ok: bool

    def __str__(self) -> str:
        return f"{'ok' if self.ok else 'FAILED':6} {self.seconds:7.1f} s  {self.name}"


@record
class Rehearsal:
    """What happened: `active` is the release that runs at the end, after the second one was rolled back."""

    stages: tuple[RehearsalStage, ...]
    rolled_back: bool
    active: str


class _Stages:
    """Collects the stages and their times; a failed one is recorded, too, and ends the rehearsal."""

    def __init__(self) -> None:
        self.done: list[RehearsalStage] = []

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started, ok = time.monotonic(), False
        try:
            yield
            ok = True
        finally:
            self.done.append(RehearsalStage(name=name, seconds=round(time.monotonic() - started, 2), ok=ok))


def rehearse(console: Console, keep: Path | None = None) -> Rehearsal:
    """Run all stages in `keep`, which must be empty and is kept; or in a temporary folder.

    Raises what the stages raise, `ConfigError` when `keep` is in use, `MissingTool` when the machine lacks
    something, and `VerificationFailed` when the unhealthy release is not rolled back.
    """
    if keep is not None:
        if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
            raise ConfigError(f"{keep}: not an empty folder", hint="name one that does not exist yet")
        keep.mkdir(parents=True, exist_ok=True)
        return _rehearse_in(keep.resolve(), console)
    with tempfile.TemporaryDirectory(prefix="turboquant-rehearsal-", ignore_cleanup_errors=True) as folder:
        return _rehearse_in(Path(folder).resolve(), console)


def _rehearse_in(folder: Path, console: Console) -> Rehearsal:
    stages = _Stages()
    try:
        active = _run_stages(folder, console, stages)
    except BaseException:
        console.note("\n".join(map(str, stages.done)))
        raise
    finally:
        residents.end(folder)
    return Rehearsal(stages=tuple(stages.done), rolled_back=True, active=active)


def _run_stages(folder: Path, console: Console, stages: _Stages) -> str:
    port = ports.free()
    good = _run_in(folder, console, port=port, suffix="turbo1")
    bad = _run_in(folder, console, port=port, suffix="turbo2", series=_faulty_series(folder))
    _prepare_emulator(folder)

    with stages("doctor"):
        missing = [item for item in doctor.doctor(good.config) if not item.ok]
        if missing:
            raise MissingTool(f"missing: {', '.join(item.name for item in missing)}", hint=missing[0].hint)
    with stages("sources"):
        miniature.materialize(_new(folder / "upstream"))
        found = pipeline.prepare(good)
    with stages("series"):
        pipeline.require(pipeline.check_series(good, found))
        rendered = pipeline.render_series(good, found)
    with stages("build"):
        first = pipeline.build(good, found, rendered)
    with stages("verify"):
        pipeline.verify(good, pipeline.directory(good, first))
    with stages("deploy"):
        pipeline.install(good, pipeline.directory(good, first))
    with stages("build of an unhealthy release"):
        second = _build_all(bad)
    with stages("deploy and rollback"):
        _deploy_unhealthy(bad, first, second)
    return first.id


def _run_in(folder: Path, console: Console, *, port: int, suffix: str, series: str = "") -> Run:
    """A run with a configuration of its own: nothing from the environment or the current directory."""
    empty = folder / "turboquant.yaml"
    empty.touch()
    flags = {
        "workspace": str(folder / "workspace"),
        "sources.ollama": str(folder / "upstream" / "ollama"),
        "sources.llama_cpp": str(folder / "upstream" / "llama.cpp"),
        "sources.offline": True,
        "series.path": series,
        "build.suffix": suffix,
        "build.min_free_gb": 0.5,
        "verify.gpu": "skip",  # the miniature has no GPU
        "deploy.prefix": str(folder / "prefix"),
        "deploy.service_manager": "emulator",
        "deploy.models": str(folder / "models"),
        "deploy.port": port,
        "deploy.stability_s": 2.0,
    }
    return Run(config=load(file=empty, environ={}, flags=flags), console=console)


def _build_all(run: Run) -> Release:
    found = pipeline.prepare(run)
    return pipeline.build(run, found, pipeline.render_series(run, found))


def _deploy_unhealthy(run: Run, first: Release, second: Release) -> None:
    """Install `second`, unverified (verification would have found the fault), and check that `first` is restored."""
    try:
        pipeline.install(run, pipeline.directory(run, second), unverified=True)
    except RolledBack as outcome:
        run.console.note(f"as expected: {outcome.message}")
    else:
        raise VerificationFailed(f"{second.id} does not generate, but its deploy succeeded")
    state = deploy.status(run.config, run.console)
    if (state.active, state.version, state.healthy) != (first.id, first.version, True):
        raise VerificationFailed(
            f"{first.id} should run again; active is {state.active}: {state.reason or state.version}"
        )


def _faulty_series(folder: Path) -> str:
    """A copy of the series with one more part."""
    path = folder / "faulty-series"
    shutil.copytree(manifest.OWN_SERIES, path)
    with (path / "series.yaml").open("a") as file:
        file.write(_FAULTY_PART)
    (path / "llama.cpp" / "fault.yaml").write_text(_FAULTY_EDIT)
    manifest.seal(path)
    return str(path)


def _prepare_emulator(folder: Path) -> None:
    """The emulator ends with this process in any case, and does not throttle a crash loop."""
    root = _new(folder / "prefix" / "launchd")
    write(root / emulator.FILE_NAME, emulator.Settings(owner_pid=os.getpid(), throttle_cap_s=0.5))


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
