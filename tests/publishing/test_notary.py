"""The notary's answers: accepted, refused, none in time, none at all. The tools are a double (see signing_program)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.publishing import packs
from tests.publishing.signing_program import SUBMISSION
from toolchain.build import check
from toolchain.core import records
from toolchain.core.delivery_errors import NotarizationFailed
from toolchain.core.errors import MissingTool
from toolchain.core.run import Run
from toolchain.publishing import notary, packing

REFUSED = {
    "status": "Invalid",
    "issues": [{"severity": "error", "path": "x.zip/bin/ollama", "message": "The binary is not signed."}],
}
ORDER = ("lib/ollama/libx.dylib", "bin/ollama", "lib/ollama/llama-server")
ACCEPTED = {"status": "Accepted", "issues": None}


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = packs.install_double(tmp_path / "double", "codesign", "rcodesign", "xcrun")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for name in ("key.p8", "key.json"):
        (folder / name).write_text("key")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A release that is signed with a Developer ID."""
    return packs.official(tmp_path / "w")


def run_with(folder: Path, double: Path, key: str = "key.p8", **more: str) -> Run:
    return packs.run_in(
        folder.parents[1], publish_notary_key=str(double / key), publish_notary_key_id="K1",
        publish_notary_issuer="I1", **more,
    )  # fmt: skip


def calls(double: Path) -> list[str]:
    lines = [json.loads(line) for line in (double / "calls").read_text().splitlines()]
    return [" ".join("ZIP" if word.endswith(".zip") else word for word in words) for words in lines]


@pytest.mark.parametrize("key", ["key.p8", "key.json"])
def test_what_is_accepted_is_notarized(folder: Path, double: Path, key: str) -> None:
    run = run_with(folder, double, key)
    (double / "notary").write_text(json.dumps(ACCEPTED))
    before = packing.pack(run, folder, packs.verification_of(check(folder)))
    assert (before.release.signing, before.release.notarized) == ("developer-id", False)
    answer = notary.notarize(run, folder)
    assert (answer.status, answer.submission) == ("accepted", SUBMISSION)
    tool = f"--key {double / key} --key-id K1 --issuer I1"
    assert calls(double) == (
        [
            f"xcrun notarytool submit --output-format json {tool} ZIP",
            f"xcrun notarytool wait {tool} --timeout 1800 {SUBMISSION}",
            f"xcrun notarytool log {tool} {SUBMISSION}",
            *(f"codesign --verify --strict --check-notarization -R=notarized {folder / name}" for name in ORDER),
        ]
        if key == "key.p8"
        else [
            f"rcodesign notary-submit --api-key-file {double / key} ZIP",
            f"rcodesign notary-wait --api-key-file {double / key} --max-wait-seconds 1800 {SUBMISSION}",
            f"rcodesign notary-log --api-key-file {double / key} {SUBMISSION}",
        ]
    )
    assert notary.notarize(run, folder) == answer
    assert sum("submit" in call for call in calls(double)) == 1, "it is not asked again"
    after = packing.pack(run, folder, packs.verification_of(check(folder)))
    assert (after.release.notarized, after.new) == (True, True)
    assert after.release.archive == before.release.archive


@pytest.mark.parametrize("key", ["key.p8", "key.json"])
def test_what_is_refused_is_not_and_may_be_submitted_again(folder: Path, double: Path, key: str) -> None:
    run = run_with(folder, double, key)
    (double / "notary").write_text(json.dumps(REFUSED))
    with pytest.raises(NotarizationFailed, match="bin/ollama: The binary is not signed"):
        notary.notarize(run, folder)
    assert not notary.is_notarized(run, check(folder))
    (double / "notary").write_text(json.dumps(ACCEPTED))
    assert notary.notarize(run, folder).status == "accepted"
    assert sum("submit" in call for call in calls(double)) == 2


@pytest.mark.parametrize("fault", ["", "hangs"])
def test_a_notary_that_does_not_answer_is_asked_for_the_same_submission(
    folder: Path, double: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notary, "_ASK_S", 1.0)
    (double / "fault").write_text(fault)
    with pytest.raises(NotarizationFailed, match=r"no answer about .* in 0\.01 minutes") as caught:
        notary.notarize(run_with(folder, double, publish_notary_minutes="0.01"), folder)
    assert "same submission" in caught.value.hint
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{double}:/usr/bin:/bin")
    (double / "fault").unlink()
    (double / "notary").write_text(json.dumps(ACCEPTED))
    assert notary.notarize(run_with(folder, double), folder).status == "accepted"
    assert sum("submit" in call for call in calls(double)) == 1


@pytest.mark.parametrize(("fault", "hint"), [("agreement", "accept Apple's new agreement"), ("key", "not valid")])
def test_what_the_account_lacks_is_said(folder: Path, double: Path, fault: str, hint: str) -> None:
    run = run_with(folder, double)
    (double / "fault").write_text(fault)
    with pytest.raises(NotarizationFailed, match="HTTP status code: 40") as caught:
        notary.notarize(run, folder)
    assert hint in caught.value.hint
    assert not (run.records_of(folder.name) / notary.RECORD).exists()


def test_an_answer_that_is_not_known_everywhere_is_a_warning(
    folder: Path, double: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (double / "notary").write_text(json.dumps(ACCEPTED))
    (double / "fault").write_text("unknown ticket")
    assert notary.notarize(run_with(folder, double), folder).status == "accepted"
    assert "does not know it as notarized yet: " in capsys.readouterr().err


def test_an_answer_about_other_content_does_not_count(folder: Path, double: Path) -> None:
    run, release = run_with(folder, double), check(folder)
    answer = notary.Notarized(release=release.id, content_sha256="0" * 64, submission=SUBMISSION, status="accepted")
    records.write(run.records_of(release.id) / notary.RECORD, answer)
    assert not notary.is_notarized(run, release)


def test_what_cannot_be_notarized(folder: Path, double: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotarizationFailed, match="it has no Mach-O file"):
        notary.notarize(run_with(folder, double), packs.linux(tmp_path / "linux"))
    with pytest.raises(NotarizationFailed, match="there is no such file"):
        notary.notarize(packs.run_in(tmp_path / "w"), folder)
    with pytest.raises(NotarizationFailed, match=r"publish\.notary_issuer is not set"):
        notary.notarize(
            packs.run_in(tmp_path / "w", publish_notary_key=str(double / "key.p8"), publish_notary_key_id="K"), folder
        )
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(MissingTool, match="xcrun was not found"):
        notary.notarize(run_with(folder, double), folder)
