"""A run from two repositories to a service.

Each function is one stage, which works on the records of earlier stages. Every record is kept as JSON, so that a run
can be inspected later. Records up to the scratch trees are in workspace/runs/<scratch name>/; a later run on the same
commits overwrites them. All records of a release are in workspace/runs/<release id>/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import sources as source_stage
from .build import build as build_release
from .build import check as check_release
from .build import load, release_dir
from .contract import check
from .contract.behaviour import Behaviour, behave
from .core.errors import EraNotServed
from .core.records import read, record, sha256_bytes, write, write_bytes
from .core.run import Run
from .deploy import install as install_release
from .deploy import preflight, proof
from .proofs import Verification
from .series import render
from .series.manifest import load_series
from .series.patched import Patched
from .series.tree import Tree
from .service import account
from .sources import eras
from .sources.newest import Newest, PassedOver, newest
from .stages import Deployment, Release, Rendered, RenderedTarget, Scratch, Sources
from .verify import verify as verify_release


@record
class Shipped:
    """Summary of `ship`; the full records are in the folder `run`."""

    run: Path
    ollama: str
    llama_cpp: str
    series_sha256: str
    release: str
    verified: bool
    deployment: Deployment
    port: int
    """of the service"""
    passed_over: tuple[PassedOver, ...] = ()
    """newer releases of Ollama that were not taken; only when the run chose the release"""


def prepare(run: Run) -> Sources:
    """Find the commits. Raises the errors of `toolchain.sources.prepare`."""
    found = source_stage.prepare(run.config, run.console)
    write(_run_dir(run, found) / "sources.json", found)
    return found


def prepare_to_ship(run: Run) -> Newest:
    """The configured Ollama, else its newest stable release to which the series applies.

    Raises the errors of `prepare`, those of `require` for a configured one, else `NoReleaseHolds`.
    """
    if run.config.sources.ollama_ref:
        found = prepare(run)
        eras.require_served(found)
        require(check_series(run, found))
        return Newest(sources=found, passed_over=())
    chosen = newest(run, lambda found: _complaint(check_series(run, found)))
    write(_run_dir(run, chosen.sources) / "sources.json", chosen.sources)
    return chosen


def render_series(run: Run, found: Sources) -> Rendered:
    """Render the series; the diffs are written beside the record, one file for each target."""
    eras.require_served(found)
    with run.console.step("render the series"):
        rendered = render.render(load_series(run), found)
    folder = _run_dir(run, found)
    write(folder / "rendered.json", rendered)
    for target in rendered.targets:
        write_bytes(folder / f"{target.target}.patch", target.diff.encode("utf-8", "surrogateescape"))
    return rendered


def check_series(run: Run, found: Sources, *, behaviour: bool = True) -> check.Checked:
    """Dry run; without `behaviour` nothing is compiled. The caller decides what a failure means."""
    series = load_series(run)
    try:
        eras.require_served(found)
    except EraNotServed as error:
        return check.Checked(
            series_sha256=series.sha256,
            llama_cpp=found.llama_cpp.describe,
            ollama=found.ollama.describe,
            edits=(),
            era=found.era,
            ok=False,
            reason=error.message,
        )

    def ask(tree: Tree, text: Patched) -> Behaviour:
        return behave(series, tree, text, run.config, run.workspace)

    return check.check(series, found, run.console, ask if behaviour else None)


def require(checked: check.Checked) -> None:
    """Raise the error of a failed dry run."""
    if found := checked.failure():
        raise found


def _complaint(checked: check.Checked) -> str:
    """The message of a failed dry run, or why such a tree cannot be built; empty on success."""
    found = checked.failure()
    return found.message if found else eras.named(checked.era).unbuilt


def make_scratch(run: Run, found: Sources, rendered: Rendered) -> Scratch:
    """Update the scratch trees to the rendered series."""
    scratch = source_stage.create(found, rendered, source_stage.scratch_root(run.config, found), run.console)
    write(_run_dir(run, found) / "scratch.json", scratch)
    return scratch


def patched_llama_cpp(run: Run) -> Path:
    """llama.cpp's scratch tree, with the series applied."""
    found = prepare(run)
    return make_scratch(run, found, render_series(run, found)).llama_cpp


def build(run: Run, found: Sources, rendered: Rendered, extra_targets: Sequence[str] = ()) -> Release:
    """Build the patched trees and assemble the release in `directory`."""
    scratch = make_scratch(run, found, rendered)
    release = build_release(
        scratch,
        found,
        rendered,
        run.config,
        run.console,
        workspace=run.workspace,
        extra_targets=extra_targets,
    )
    folder = run.records_of(release.id)
    for name, made in (("sources", found), ("rendered", rendered), ("scratch", scratch), ("release", release)):
        write(folder / f"{name}.json", made)
    return release


def directory(run: Run, release: Release) -> Path:
    """The directory of a release that was built in this run's workspace."""
    return release_dir(run.workspace, release)


def verify(run: Run, release: Path) -> Verification:
    """Verify a release, and check its files against its manifest. Raises `ReleaseInvalid` when they differ."""
    manifest = check_release(release)
    folder = run.records_of(manifest.id)
    write(folder / "release.json", manifest)
    return verify_release(release, run.config, run.console, workspace=run.workspace, kept=folder)


def verification_of(run: Run, release: Path) -> Verification | None:
    """The last verification of a release in this workspace, else the one beside its manifest."""
    for folder in (run.records_of(load(release).id), release):
        if (folder / proof.FILE_NAME).is_file():
            return read(folder / proof.FILE_NAME, Verification)
    return None


def install(
    run: Run, release: Path, verification: Verification | None = None, *, unverified: bool = False
) -> Deployment:
    """Make a release the service, with the given verification or the one that was recorded for it.

    `unverified` is the setting deploy.allow_unverified.
    """
    config = run.config
    if unverified:
        config = replace(config, deploy=replace(config.deploy, allow_unverified=True))
    deployment = install_release(release, config, run.console, verification or verification_of(run, release))
    folder = run.records_of(deployment.active)
    manifest = replace(load(release), verification="")
    with account.acting_in(run.workspace):
        write(folder / "release.json", manifest)
        write(folder / "deployment.json", deployment)
    return deployment


def stock(found: Sources) -> Rendered:
    """The empty rendering: both trees pristine."""
    empty = sha256_bytes(b"")
    commits = {"llama.cpp": found.llama_cpp.commit, "ollama": found.ollama.commit}
    return Rendered(
        series_sha256=empty,
        targets=tuple(
            RenderedTarget(target=target, commit=commits[target], diff="", sha256=empty, files=())
            for target in eras.of(found).targets
        ),
        edits=(),
        facts={},
        cache_types=(),
    )


def ship(run: Run) -> Shipped:
    """Sources, series, build, verification and deployment in one run; the first failure ends it."""
    preflight(run.config, run.console)
    chosen = prepare_to_ship(run)
    found = chosen.sources
    proven = load_series(run).proven
    if proven and (beyond := proven.beyond(str(found.pin.build))):
        run.console.warn(f"{beyond}; only verification can show that the GPU kernels are right")
    rendered = render_series(run, found)
    release = build(run, found, rendered)
    built = directory(run, release)
    if run.config.verify.model:
        from .models.compatibility import examination  # slow to import, and needed only where a model is named
        from .models.quality import calibration

        run = examination.suited(calibration.for_service(run, release, built), release, built)
    verification = verify(run, built)
    deployment = install(run, built, verification)
    return Shipped(
        run=run.records_of(release.id),
        ollama=found.ollama.describe,
        llama_cpp=found.llama_cpp.describe,
        series_sha256=rendered.series_sha256,
        release=release.id,
        verified=verification.ok,
        deployment=deployment,
        port=run.config.deploy.port,
        passed_over=chosen.passed_over,
    )


def _run_dir(run: Run, found: Sources) -> Path:
    return run.workspace / "runs" / source_stage.scratch_root(run.config, found).name
