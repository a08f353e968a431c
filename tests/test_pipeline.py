"""The records of a release, from its verification to the service: where they lie, and that an install finds them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.deploy.site import Site, identifier, verification
from tests.tasks.test_command import inv
from tests.verify.conftest import write_release
from toolchain import pipeline
from toolchain.build import MANIFEST
from toolchain.build import release as built
from toolchain.core import config, records
from toolchain.core.console import Console
from toolchain.core.errors import ConfigError, ReleaseInvalid, Unverified, VerificationFailed
from toolchain.core.run import Run
from toolchain.deploy import proof
from toolchain.proofs import Verification
from toolchain.stages import Deployment, Release


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    place = Site.make(tmp_path)
    yield place
    place.close()


@pytest.fixture
def run(site: Site) -> Run:
    settings = config.load(
        file=site.folder / "turboquant.yaml", environ={}, flags={"workspace": str(site.folder / "ws")}
    )
    return Run(config=settings, console=Console())


def test_the_last_verification_of_the_workspace_counts(site: Site, run: Run) -> None:
    release = site.release("1")
    kept = run.records_of(identifier(release))
    assert kept == run.workspace / "runs" / identifier(release)
    assert pipeline.verification_of(run, release) is None
    beside, own = verification(release, seconds=1), verification(release, seconds=2, ok=False)
    records.write(release / "verification.json", beside)
    assert pipeline.verification_of(run, release) == beside
    records.write(kept / "verification.json", own)
    assert pipeline.verification_of(run, release) == own
    with pytest.raises(Unverified, match="its verification failed"):
        pipeline.install(run, release)
    assert not (kept / "deployment.json").exists()


def test_what_is_not_as_its_manifest_says_is_not_verified(site: Site, run: Run) -> None:
    release = site.release("1")
    (release / "lib/ollama/libggml.so.0").write_text("damaged")
    with pytest.raises(ReleaseInvalid, match=r"libggml\.so\.0 was changed"):
        pipeline.verify(run, release)
    assert not run.workspace.exists()


def _scripted(folder: Path, **behaviour: object) -> Path:
    """A whole release without types of its own, whose server does as `behaviour` says."""
    release = write_release(folder, (), **behaviour)
    server = release / "lib/ollama/llama-server"
    server.parent.mkdir(parents=True)
    server.touch(mode=0o755)
    stated = replace(records.read(release / MANIFEST, Release), files=built.file_digests(release))
    records.write(release / MANIFEST, replace(stated, id=built.release_id(stated)))
    return release


def test_a_verification_is_recorded_with_what_it_is_of(tmp_path: Path, run: Run) -> None:
    """Stock releases have no types of ours to prove and no checklist; the types of the settings must be theirs."""
    stock = replace(run, config=replace(run.config, verify=replace(run.config.verify, types=("q8_0",), tokens=7)))
    good, bad = _scripted(tmp_path / "good"), _scripted(tmp_path / "bad", missing_tokens=2)
    proven = pipeline.verify(stock, good)
    assert (proven.ok, proven.checklist) == (True, ())
    kept = run.records_of(identifier(good))
    assert pipeline.verification_of(run, good) == records.read(kept / "verification.json", Verification) == proven
    stated = records.read(kept / "release.json", Release)
    assert proof.doubt(stated, proven) == ""
    with pytest.raises(VerificationFailed):
        pipeline.verify(stock, bad)
    failed = pipeline.verification_of(run, bad)
    assert proof.doubt(records.read(bad / MANIFEST, Release), failed) == "its verification failed"
    assert "for other content" in proof.doubt(stated, failed)
    with pytest.raises(ConfigError, match="no cache type turbo4"):
        pipeline.verify(run, good)
    assert pipeline.verification_of(run, good) == proven


@pytest.mark.slow
def test_an_install_leaves_its_record(site: Site, run: Run) -> None:
    release = site.release("1")
    kept = run.records_of(identifier(release))
    deployed = pipeline.install(run, release, unverified=True)
    assert (deployed.healthy, deployed.verified) == (True, False)
    assert records.read(kept / "deployment.json", Deployment) == deployed
    again = pipeline.install(run, release, verification(release))
    assert (again.pid, again.verified) == (deployed.pid, True)
    assert records.read(kept / "deployment.json", Deployment) == again
    assert records.read(kept / "release.json", Release) == records.read(release / MANIFEST, Release)


@pytest.mark.slow
def test_the_command_line_refuses_and_can_be_told_otherwise(site: Site) -> None:
    release = site.release("1")
    words = ["deploy.install", "--release", str(release), "--workspace", str(site.folder / "ws"), "--json"]
    refused = inv(*words, cwd=site.folder)
    assert (refused.returncode, json.loads(refused.stdout)["error"]) == (56, "Unverified")
    told = inv(*words, "--unverified", cwd=site.folder)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["verified"] is False
    assert "it was never verified" in told.stderr
    status = inv("deploy.status", "--json", cwd=site.folder)
    assert json.loads(status.stdout)["verified"] is False
