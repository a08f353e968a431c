"""What is staged for publication: verified releases alone, once, and whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.publishing import packs
from toolchain.build import check
from toolchain.core import records
from toolchain.core.delivery_errors import SigningFailed
from toolchain.core.errors import RecordError, ReleaseInvalid, Unverified
from toolchain.core.run import Run
from toolchain.publishing import packing
from toolchain.publishing.published import RELEASE_FILE, Document, PublishedRelease, Role
from toolchain.serving import probe_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return packs.run_in(tmp_path / "w")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return packs.linux(tmp_path / "w")


def pack(run: Run, folder: Path, sequence: int = 0) -> packing.Packed:
    return packing.pack(run, folder, packs.verification_of(check(folder)), sequence=sequence)


def test_a_verified_release_is_staged_with_its_probe(run: Run, folder: Path, tmp_path: Path) -> None:
    packed = pack(run, folder)
    assert packed.folder == run.workspace / "packed" / folder.name
    assert {path.name for path in packed.folder.iterdir()} == {f"{folder.name}.tar.gz", "probe.gguf", RELEASE_FILE}
    assert {path.stat().st_mode & 0o777 for path in packed.folder.iterdir()} == {0o644}
    stated = records.read(packed.folder / RELEASE_FILE, PublishedRelease)
    assert stated == packed.release
    release = check(folder)
    assert (stated.id, stated.files, stated.sequence, stated.signing) == (release.id, release.files, 1, "none")
    assert (stated.min_macos, stated.unsigned, stated.notarized) == ("", {}, False)
    assert stated.manifest_sha256 == records.sha256_file(folder / "manifest.json")
    assert stated.documents["probe"] == packing.document(packed.folder / "probe.gguf")
    probe_model.write_probe(tmp_path / "again.gguf", **packing.PROBE_SIZES)
    assert records.sha256_file(tmp_path / "again.gguf") == stated.documents["probe"].sha256


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file each is, and when it was written last."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_packed_again_nothing_changes(run: Run, folder: Path) -> None:
    first = pack(run, folder)
    before = identities(first.folder)
    (run.workspace / "packed/.making/dead").mkdir(parents=True)
    again = pack(run, folder)
    assert (again.release, again.new) == (first.release, False)
    assert identities(first.folder) == before


@pytest.mark.parametrize("damage", ["archive", "probe", "release.json", "older"])
def test_what_is_damaged_is_packed_anew(run: Run, folder: Path, damage: str) -> None:
    first = pack(run, folder)
    if damage == "older":
        text = (first.folder / RELEASE_FILE).read_text()
        (first.folder / RELEASE_FILE).write_text(text.replace(first.release.manifest_sha256, "0" * 64))
    else:
        name = {"archive": first.release.archive.name, "probe": "probe.gguf"}.get(damage, damage)
        (first.folder / name).write_bytes(b"damaged")
    (run.workspace / "packed/.making/dead").mkdir(parents=True)
    again = pack(run, folder)
    assert (again.release, again.new) == (first.release, True)
    assert records.sha256_file(again.folder / again.release.archive.name) == first.release.archive.sha256
    assert sorted(path.name for path in (run.workspace / "packed").iterdir()) == [".lock", folder.name]


def test_documents_that_were_added_stay_unless_they_are_damaged(run: Run, folder: Path) -> None:
    first = pack(run, folder)
    (first.folder / "sbom.cdx.json").write_text("{}")
    (first.folder / "notes.md").write_text("notes")
    documents: dict[Role, Document] = {
        **first.release.documents,
        "sbom": packing.document(first.folder / "sbom.cdx.json"),
        "notes": packing.document(first.folder / "notes.md"),
    }
    with_them = replace(first.release, documents=documents)
    records.write(first.folder / RELEASE_FILE, with_them)
    assert pack(run, folder, sequence=7).release == replace(with_them, sequence=7)
    (first.folder / "notes.md").write_text("other")
    assert set(pack(run, folder).release.documents) == {"probe", "sbom"}


def test_the_sequence_grows_with_the_publication(run: Run, folder: Path, tmp_path: Path) -> None:
    published = packing.publication(run)
    other = pack(packs.run_in(tmp_path / "other"), packs.official(tmp_path / "other"), sequence=41).release
    records.write(published.release_file(other.id), other)
    first = pack(run, folder)
    assert first.release.sequence == 42
    records.write(published.release_file(first.release.id), replace(first.release, sequence=42))
    assert not pack(run, folder).new, "a published release keeps its number"
    with pytest.raises(SigningFailed, match=r"different ways: libx\.0\.dylib: adhoc, liby\.dylib: none"):
        pack(run, packs.macos(tmp_path / "mixed"))
    (published.release_file(other.id)).write_text("{")
    with pytest.raises(RecordError, match=r"release\.json"):
        pack(run, folder)


def test_only_what_is_proven_is_packed(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = check(folder)
    proven = packs.verification_of(release)
    for verification, why in (
        (None, "it was never verified"),
        (replace(proven, ok=False), "its verification failed"),
        (replace(proven, content_sha256="0" * 64), "its verification is for other content"),
    ):
        with pytest.raises(Unverified, match=why) as caught:
            packing.pack(run, folder, verification)
        assert "./inv verify --release" in caught.value.hint
        assert not (run.workspace / "packed").exists()
    packing.pack(run, folder, None, unverified=True)
    assert "it was never verified; packing it anyway" in capsys.readouterr().err


def test_a_changed_release_is_not_packed(run: Run, folder: Path) -> None:
    verification = packs.verification_of(check(folder))
    (folder / "bin/ollama").write_bytes(b"other")
    with pytest.raises(ReleaseInvalid, match="bin/ollama was changed"):
        packing.pack(run, folder, verification)
    assert not (run.workspace / "packed").exists()


def test_only_listed_files_are_packed(run: Run, folder: Path) -> None:
    (folder / "environment").write_text("KEY=secret")
    (folder / ".DS_Store").write_bytes(b"Finder")
    packed = pack(run, folder)
    listed = subprocess.run(
        ["tar", "tzf", packed.folder / packed.release.archive.name], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    files = {name.removeprefix(f"{folder.name}/") for name in listed if not name.endswith("/")}
    assert files == {*packed.release.files, "manifest.json"}


def inv(workspace: Path, *words: str) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import tasks; tasks.start()", *words, "--json", "--workspace", workspace],
        capture_output=True, check=False, cwd=workspace, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
def test_the_tasks(run: Run, folder: Path) -> None:
    code, failed = inv(run.workspace, "release.pack")
    assert (code, failed["error"]) == (Unverified.exit_code, "Unverified")
    packed = pack(run, folder)
    code, compared = inv(run.workspace, "release.compare", folder.name, f"{packed.folder}/{RELEASE_FILE}")
    assert (code, compared["equal"], compared["identical"]) == (0, True, True)
