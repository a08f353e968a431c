"""Which releases are installed: those that a verification proves, and others only when that is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from toolchain.build import release as built
from toolchain.core import records
from toolchain.core.console import Console
from toolchain.core.errors import Unverified
from toolchain.deploy import installer, proof
from toolchain.proofs import GpuProof, Verification
from toolchain.stages import Deployment, Release
from toolchain.text import as_text

from .site import Site, identifier, verification


def _attempt(site: Site, release: Path, verified: Verification | None) -> Deployment:
    return installer.install(release, site.config, site.console, verified)


def _allowed(site: Site) -> Site:
    return site.configured(allow_unverified=True)


def test_what_no_verification_proves_is_refused_before_anything_happens(site: Site) -> None:
    release, other = site.release("1"), site.release("2")
    for verified, why in (
        (None, "it was never verified"),
        (verification(release, ok=False), "its verification failed"),
        (verification(other), rf"for other content \({identifier(other)}\)"),
        (replace(verification(release), content_sha256=""), "for other content"),
    ):
        with pytest.raises(Unverified, match=f"{identifier(release)}: .*{why}") as refused:
            _attempt(site, release, verified)
        assert refused.value.exit_code == 56
        assert f"./inv verify --release {identifier(release)}, or" in refused.value.hint
        assert "--unverified" in refused.value.hint
    assert not site.prefix.releases.exists()
    assert not site.prefix.journal.exists()
    stock = site.configured(kv_cache_type="q8_0")
    with pytest.raises(Unverified) as refused:
        _attempt(stock, site.release("stock", types=()), None)
    assert "--set verify.types=q8_0" in refused.value.hint  # the types of the settings are ours, which stock lacks


def test_a_verification_without_a_gpu_is_said_on_a_mac(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    folder = site.release("1")
    release = replace(records.read(folder / built.MANIFEST, Release), platform="macos-arm64")
    without = replace(verification(folder), content_sha256=built.content_digest(release), gpu=None)
    for verified, warned in ((without, True), (replace(without, gpu=GpuProof(starts=(), comparisons=())), False)):
        assert proof.require(release, verified, site.config.deploy, Console()) == verified
        assert ("verified without a GPU" in capsys.readouterr().err) is warned


def test_a_verification_is_of_all_that_it_depends_on(site: Site) -> None:
    folder = site.release("1")
    release = records.read(folder / built.MANIFEST, Release)
    proven = verification(folder)
    assert proof.doubt(replace(release, created="later", tools={"cc": "gcc"}), proven) == ""
    for change in (
        {"files": {**release.files, "bin/ollama": "0" * 64}},
        {"cache_types": ()},
        {"llama_cpp_build": 2},
        {"platform": "macos-arm64"},
        {"id": "1-other"},
    ):
        assert "for other content" in proof.doubt(replace(release, **change), proven)


@pytest.mark.slow
def test_the_installed_manifest_names_its_proof(site: Site) -> None:
    release = site.release("1")
    assert installer.status(site.config, site.console).verified is False
    proven = verification(release)
    deployed = _attempt(site, release, proven)
    assert deployed.verified
    folder = site.prefix.release(identifier(release))
    stated = records.read(folder / built.MANIFEST, Release)
    assert stated.verification == records.sha256_file(folder / "verification.json")
    assert records.read(folder / "verification.json", Verification) == proven
    assert built.check(folder) == stated
    assert replace(stated, verification="") == built.check(release)
    assert ", healthy)" in as_text(site.status())
    # a proof that was changed, or taken from another release, is none
    (folder / "verification.json").write_text(records.to_json(verification(release, seconds=9.0)))
    assert not site.status().verified
    assert ", healthy, NOT VERIFIED)" in as_text(site.status())
    (folder / "verification.json").write_text("{")
    assert not site.status().verified
    (folder / "verification.json").unlink()
    after = site.status()
    assert (after.verified, after.healthy) == (False, True)


@pytest.mark.slow
def test_a_newer_verification_restarts_nothing_and_replaces_no_proof(site: Site) -> None:
    release = site.release("1")
    first = _attempt(site, release, verification(release))
    folder = site.prefix.release(identifier(release))
    before = (folder / "verification.json").stat(), (folder / built.MANIFEST).stat()
    assert _attempt(site, release, verification(release, seconds=2.0)) == first
    assert _attempt(_allowed(site), release, None) == first  # neither does one that nobody proved
    assert ((folder / "verification.json").stat(), (folder / built.MANIFEST).stat()) == before


@pytest.mark.slow
def test_an_unverified_release_is_installed_when_asked_for_and_proven_later(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    release = site.release("1")
    first = _attempt(_allowed(site), release, verification(release, ok=False))
    assert (first.healthy, first.verified) == (True, False)
    assert "its verification failed; installing it anyway" in capsys.readouterr().err
    assert not (site.prefix.release(identifier(release)) / "verification.json").exists()
    later = _attempt(site, release, verification(release))
    assert later == replace(first, verified=True)  # the pid too: nothing was restarted
    site.assert_clean()


@pytest.mark.slow
def test_a_rollback_to_a_release_from_before_there_were_proofs(site: Site) -> None:
    old, new = site.release("1"), site.release("2")
    _attempt(_allowed(site), old, None)
    manifest = site.prefix.release(identifier(old)) / built.MANIFEST
    manifest.write_bytes((old / built.MANIFEST).read_bytes().replace(b'"verification": ""', b'"unknown": ""'))
    assert _attempt(site, new, verification(new)).verified
    back = installer.rollback(site.config, site.console)
    assert (back.active, back.healthy, back.verified) == (identifier(old), True, False)
    forward = installer.rollback(site.config, site.console, to=identifier(new))
    assert (forward.healthy, forward.verified) == (True, True)
    site.assert_clean()


@pytest.mark.slow
def test_an_installed_release_can_be_installed_elsewhere_with_its_proof(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    release = site.release("1")
    _attempt(site, release, verification(release))
    copied = site.prefix.release(identifier(release))
    other = Site.make(tmp_path_factory.mktemp("other"))
    try:
        found = _attempt(other, copied, records.read(copied / "verification.json", Verification))
        assert (found.active, found.verified) == (identifier(release), True)
        assert not (other.prefix.release(identifier(release)) / "environment").samefile(copied / "environment")
    finally:
        other.close()
