"""Releases are signed inside out, by the exact commands, and what a tool did wrong is noticed.

The tools are a double (signing_program says what it models), and rcodesign itself where there is one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.publishing import packs
from tests.publishing.signing_program import IDENTITY
from toolchain.build import check, macho
from toolchain.core import records
from toolchain.core.delivery_errors import DriftFound, SigningFailed
from toolchain.core.errors import MissingTool, ReleaseInvalid
from toolchain.core.run import Run
from toolchain.publishing import codesign, codesignature, comparison, packing

ORDER = ("lib/ollama/libx.0.dylib", "lib/ollama/liby.dylib", "bin/ollama", "lib/ollama/llama-server")


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the double, which is the only codesign and rcodesign."""
    folder = packs.install_double(tmp_path / "double", "codesign", "rcodesign")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    (folder / "certificate.p12").write_bytes(b"p12")
    (folder / "certificate.pem").write_bytes(b"pem")
    (folder / "password").write_bytes(b"secret")
    return folder


def calls(double: Path) -> list[list[str]]:
    return [json.loads(line) for line in (double / "calls").read_text().splitlines()]


def signed(run: Run, folder: Path) -> tuple[codesign.Signed, Path]:
    result = codesign.sign(run, folder)
    return result, run.workspace / "releases" / result.release


COMMANDS = {
    ("adhoc", "codesign"): "codesign --force --sign - --timestamp=none --identifier ID FILE; "
    "codesign --verify --strict FILE",
    ("self-signed", "codesign"): "codesign --force --sign Self --timestamp=none --identifier ID FILE; "
    "codesign --verify --strict FILE",
    ("developer-id", "codesign"): f"codesign --force --sign {IDENTITY} --options runtime --timestamp "
    "--identifier ID FILE; codesign --verify --strict FILE",
    ("adhoc", "rcodesign"): "rcodesign sign --binary-identifier ID FILE",
    ("self-signed", "rcodesign"): "rcodesign sign --binary-identifier ID --timestamp-url none --pem-file PEM FILE",
    ("developer-id", "rcodesign"): "rcodesign sign --binary-identifier ID --for-notarization --p12-file P12 "
    "--p12-password-file PASSWORD FILE",
}  # fmt: skip


@pytest.mark.parametrize(("signing", "tool"), COMMANDS)
def test_every_macho_file_is_signed_by_the_exact_commands(
    tmp_path: Path, double: Path, signing: str, tool: str
) -> None:
    folder = packs.macos(tmp_path / "w")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    certificate = double / f"certificate.{'p12' if signing == 'developer-id' else 'pem'}"
    run = packs.run_in(
        tmp_path / "w", publish_signing=signing, publish_signing_tool=tool,
        publish_identity=IDENTITY if signing == "developer-id" else "Self", publish_certificate=str(certificate),
        publish_certificate_password_file=str(double / "password"),
    )  # fmt: skip
    result, made = signed(run, folder)
    expected = [
        command.replace("ID FILE", f"io.turboquant.{Path(name).name} FILE")
        .replace("ID --", f"io.turboquant.{Path(name).name} --")
        .replace("PEM", str(certificate)).replace("P12", str(certificate)).replace("PASSWORD", str(double / "password"))
        .replace("FILE", Path(name).name)
        for name in ORDER
        for command in COMMANDS[signing, tool].split("; ")
    ]  # fmt: skip
    said = [" ".join([*words[:-1], Path(words[-1]).name]) for words in calls(double)]
    assert said == expected
    assert result.files == ORDER
    assert {path: path.read_bytes() for path in before} == before, "the unsigned release stays"
    release = check(made)
    assert release.id == result.release != result.of == folder.name
    assert release.executable == check(folder).executable
    assert release.flags["signing"] == signing
    assert codesignature.signing(macho.files(made, release).values()) == signing
    assert records.read(run.records_of(release.id) / codesign.RECORD, codesign.Signed) == result
    compared = comparison.compare(folder, made)
    assert (compared.equal, compared.identical) == (True, False)


def test_an_ad_hoc_signature_is_made_once_and_the_records_go_with_it(tmp_path: Path, double: Path) -> None:
    folder = packs.macos(tmp_path / "w")
    run = packs.run_in(tmp_path / "w")
    records.write(run.records_of(folder.name) / "rendered.json", {"any": "thing"})
    first, made = signed(run, folder)
    again, _ = signed(run, made)
    assert again.release == first.release
    assert (run.records_of(first.release) / "rendered.json").is_file()
    assert not (run.records_of(first.release) / "verification.json").exists()
    assert double.is_dir()


@pytest.mark.parametrize(
    ("fault", "signing", "said"),
    [
        ("locked", "adhoc", "errSecInternalComponent"),
        ("keeps entitlements", "adhoc", "has entitled True"),
        ("changes content", "adhoc", "changed more than the signature"),
        ("does nothing", "adhoc", "'llama-server|'libx'|has signing 'none'"),
        ("no runtime", "developer-id", "has hardened False"),
    ],
)
def test_a_tool_that_does_something_else_is_noticed(
    tmp_path: Path, double: Path, fault: str, signing: str, said: str
) -> None:
    folder = packs.macos(tmp_path / "w")
    (double / "fault").write_text(fault)
    run = packs.run_in(
        tmp_path / "w", publish_signing=signing, publish_signing_tool="codesign", publish_identity=IDENTITY
    )
    with pytest.raises(SigningFailed, match=said) as caught:
        codesign.sign(run, folder)
    assert fault != "locked" or "unlock-keychain" in caught.value.hint
    assert [path.name for path in (tmp_path / "w/releases").iterdir() if path.is_dir()] == [folder.name]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"signing_tool": "codesign", "signing": "developer-id"}, r"publish\.signing=developer-id: no certificate"),
        ({"signing_tool": "rcodesign", "signing": "self-signed"}, r"publish\.signing=self-signed: no certificate"),
        ({"signing_tool": "rcodesign", "signing": "self-signed", "certificate": "/none.pem"}, "no such file"),
        ({"signing_tool": "codesign", "signing": "developer-id", "identity": "Nobody"}, "no identity found"),
    ],
)
def test_a_certificate_that_is_not_there(tmp_path: Path, double: Path, settings: dict[str, str], expected: str) -> None:
    run = packs.run_in(tmp_path / "w", **{f"publish_{name}": value for name, value in settings.items()})
    with pytest.raises(SigningFailed, match=expected) as caught:
        codesign.sign(run, packs.macos(tmp_path / "w"))
    assert caught.value.hint
    assert double.is_dir()


def test_without_the_tool_nothing_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = packs.macos(tmp_path / "w")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="rcodesign was not found"):
        codesign.sign(packs.run_in(tmp_path / "w", publish_signing_tool="rcodesign"), folder)


def test_a_release_for_linux_has_nothing_to_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = packs.linux(tmp_path / "w")
    result = codesign.sign(packs.run_in(tmp_path / "w"), folder)
    assert (result.release, result.files, result.signing) == (folder.name, (), "none")
    assert "nothing to sign: it has no Mach-O file (linux-x86_64)" in capsys.readouterr().err


def test_a_rebuild_is_compared_with_what_was_published(tmp_path: Path, double: Path) -> None:
    folder = packs.macos(tmp_path / "w")
    run = packs.run_in(tmp_path / "w")
    _, made = signed(run, folder)
    packed = packing.pack(run, made, packs.verification_of(check(made)))
    assert packed.release.signing == "adhoc"
    assert packed.release.min_macos == "14.2"
    assert set(packed.release.unsigned) == set(ORDER)
    rebuilt = packs.macos(tmp_path / "rebuilt")
    found = comparison.compare(packed.folder / "release.json", rebuilt)
    assert (found.equal, found.identical, found.failure()) == (True, False, None)
    assert comparison.compare(packed.folder, made).identical
    other = comparison.compare(packed.folder / "release.json", packs.macos(tmp_path / "other", b"other code"))
    assert {one.what for one in other.differences} == set(ORDER) - {"lib/ollama/liby.dylib"}
    assert isinstance(other.failure(), DriftFound)
    linux = comparison.compare(made, packs.linux(tmp_path / "linux"))
    assert {"<platform>", "lib/ollama/empty"} <= {one.what for one in linux.differences}
    with pytest.raises(ReleaseInvalid, match="nowhere"):
        comparison.compare(tmp_path / "nowhere", made)
    assert double.is_dir()


def test_real_rcodesign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = os.environ.get("TURBOQUANT_RCODESIGN") or shutil.which("rcodesign")
    if not named:
        pytest.skip("no rcodesign on PATH, and TURBOQUANT_RCODESIGN names none")
    tool = Path(named)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    certificate = tmp_path / "certificate.pem"
    subprocess.run(
        [tool, "generate-self-signed-certificate", "--person-name", "Test", "--pem-unified-file", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    folder = packs.macos(tmp_path / "w")
    for signing in ("adhoc", "self-signed"):
        run = packs.run_in(
            tmp_path / "w", publish_signing=signing, publish_signing_tool="rcodesign",
            publish_certificate=str(certificate),
        )  # fmt: skip
        result, made = signed(run, folder)
        assert codesignature.signing(macho.files(made, check(made)).values()) == signing
        assert comparison.compare(folder, made).equal
        again, _ = signed(run, made)
        assert again.unsigned == result.unsigned
    run = packs.run_in(
        tmp_path / "w", publish_signing="developer-id", publish_signing_tool="rcodesign",
        publish_certificate=str(certificate),
    )  # fmt: skip
    with pytest.raises(SigningFailed, match="not compatible with notarization"):
        codesign.sign(run, folder)
