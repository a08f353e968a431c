"""Releases that were signed outside of the toolkit after the build: told from changed ones, and made releases of."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.publishing import packs
from tests.publishing.signing_program import IDENTITY
from toolchain.build import MANIFEST, check, load, macho
from toolchain.core import records
from toolchain.core.delivery_errors import SigningFailed
from toolchain.core.errors import ReleaseInvalid
from toolchain.publishing import codesign, codesignature, comparison, sealing
from toolchain.text import as_text

FILES = ("bin/ollama", "lib/ollama/libx.0.dylib", "lib/ollama/liby.dylib", "lib/ollama/llama-server")


def sign_outside(tmp_path: Path, folder: Path, names: tuple[str, ...] = FILES) -> None:
    """What a release engineer runs on the release directory itself, with the double of codesign."""
    tool = packs.install_double(tmp_path / "double", "codesign") / "codesign"
    for name in names:
        options = [
            "--force",
            "--sign",
            IDENTITY,
            "--options",
            "runtime",
            "--timestamp",
            "--identifier",
            "org.example.x",
        ]
        subprocess.run([tool, *options, folder / name], check=True, capture_output=True)


def test_a_release_signed_in_place_is_sealed(tmp_path: Path) -> None:
    folder = packs.macos(tmp_path / "w")
    built = check(folder)
    assert set(built.unsigned or {}) == set(FILES)
    sign_outside(tmp_path, folder)
    with pytest.raises(ReleaseInvalid, match=r"signed after the build: bin/ollama; lib/ollama/libx") as caught:
        check(folder)
    assert caught.value.hint.startswith(f"./inv build.seal --release {folder}")

    run = packs.run_in(tmp_path / "w")
    records.write(run.records_of(built.id) / "rendered.json", {"any": "thing"})
    result = sealing.seal(run, folder)
    made = run.workspace / "releases" / result.release
    sealed = check(made)
    assert sealed.id == result.release != result.of == built.id
    assert (result.signing, result.tool, sealed.flags["signing"]) == ("developer-id", "outside", "developer-id")
    assert sealed.unsigned == built.unsigned
    for one in result.digests:
        assert (one.built, one.signed) == (built.files[one.name], sealed.files[one.name])
        assert one.signed == records.sha256_file(folder / one.name) != one.built
        assert f"built {one.built[:16]}, signed {one.signed[:16]}" in as_text(result)
    assert tuple(one.name for one in result.digests) == FILES
    assert records.read(run.records_of(sealed.id) / codesign.RECORD, codesign.Signed) == result
    assert (run.records_of(sealed.id) / "rendered.json").is_file()
    assert load(folder).id == built.id, "the signed directory stays as it is"
    again = sealing.seal(run, made)
    assert (again.release, again.files) == (sealed.id, ())


def test_what_is_more_than_a_signature_stays_a_change(tmp_path: Path) -> None:
    folder, run = packs.macos(tmp_path / "w"), packs.run_in(tmp_path / "w")
    program = folder / "bin/ollama"
    data = bytearray(program.read_bytes())
    data[0x900] ^= 1
    program.write_bytes(data)
    sign_outside(tmp_path, folder)  # valid signatures, of another program
    for refuse in (check, lambda path: sealing.seal(run, path)):
        with pytest.raises(ReleaseInvalid, match="bin/ollama was changed") as caught:
            refuse(folder)
        assert "build it again" in caught.value.hint
    (folder / "lib/ollama/evil.dylib").write_bytes(b"x")
    with pytest.raises(ReleaseInvalid, match=r"evil\.dylib is not in the manifest"):
        sealing.seal(run, folder)


def test_some_files_signed_and_others_not(tmp_path: Path) -> None:
    folder, run = packs.macos(tmp_path / "w"), packs.run_in(tmp_path / "w")
    sign_outside(tmp_path, folder, FILES[:1])
    with pytest.raises(SigningFailed, match="signed in different ways"):
        sealing.seal(run, folder)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_a_signature_that_does_not_fit_its_file(tmp_path: Path) -> None:
    folder, run = packs.macos(tmp_path / "w"), packs.run_in(tmp_path / "w")
    sign_outside(tmp_path, folder)
    program = folder / "bin/ollama"
    data = bytearray(program.read_bytes())
    data[-200] ^= 0xFF
    program.write_bytes(data)
    with pytest.raises((SigningFailed, ReleaseInvalid)):
        sealing.seal(run, folder)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_a_manifest_of_an_earlier_version_cannot_tell(tmp_path: Path) -> None:
    folder = packs.macos(tmp_path / "w")
    records.write(folder / MANIFEST, replace(check(folder), unsigned=None))
    assert check(folder).unsigned is None
    sign_outside(tmp_path, folder)
    with pytest.raises(ReleaseInvalid, match="was changed"):
        check(folder)


def test_a_release_for_linux_has_nothing_to_seal(tmp_path: Path) -> None:
    folder = packs.linux(tmp_path / "w")
    assert check(folder).unsigned == {}
    assert sealing.seal(packs.run_in(tmp_path / "w"), folder).files == ()


def test_real_rcodesign_in_place(tmp_path: Path) -> None:
    tool = os.environ.get("TURBOQUANT_RCODESIGN") or shutil.which("rcodesign")
    if not tool:
        pytest.skip("no rcodesign on PATH, and TURBOQUANT_RCODESIGN names none")
    certificate = tmp_path / "certificate.pem"
    made: list[str | Path] = [
        "generate-self-signed-certificate",
        "--person-name",
        "Test",
        "--pem-unified-file",
        certificate,
    ]
    subprocess.run([tool, *made], check=True, capture_output=True)
    folder, run = packs.macos(tmp_path / "w"), packs.run_in(tmp_path / "w")
    for name in FILES:
        words: list[str | Path] = ["sign", "--pem-file", certificate, "--timestamp-url", "none", folder / name]
        subprocess.run([tool, *words], check=True, capture_output=True)
    result = sealing.seal(run, folder)
    sealed = run.workspace / "releases" / result.release
    assert codesignature.signing(macho.files(sealed, check(sealed)).values()) == result.signing == "self-signed"
    assert comparison.compare(packs.macos(tmp_path / "again"), sealed).equal
