"""`release.notarize`: Apple's notary looks at the signed programs, and Gatekeeper then asks Apple for its answer.

Bare programs cannot have the answer attached (stapled). The submission is recorded before its answer is known, so that
a run that was cut off, or that waited too long, asks for the same one again.
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from ..build import check, content_digest, macho
from ..core import process, records, temporary
from ..core.config import PublishConfig
from ..core.delivery_errors import NotarizationFailed
from ..core.errors import MissingTool, RecordError
from ..core.records import record
from ..core.run import Run
from ..stages import Release
from . import codesignature

RECORD = "notarization.json"
_ASK_S = 120.0
_UPLOAD_S = 1800.0
"""for some hundred MB on a slow line"""
_SUBMISSION = re.compile(r"created submission ID: ([0-9a-fA-F-]{36})\b")
_HINTS = {
    "agreement": "the account holder has to accept Apple's new agreement: https://developer.apple.com/account",
    "401": "the key is not valid: see publish.notary_key, publish.notary_key_id and publish.notary_issuer",
    "Unauthenticated": "the key is not valid: see publish.notary_key",
}


@record
class Notarized:
    """notarization.json: the notary's answer about a release."""

    release: str
    content_sha256: str
    """as in a verification: the answer is about this content only"""
    submission: str
    """Apple's id of it"""
    status: Literal["in progress", "accepted", "refused"]
    issues: tuple[str, ...] = ()
    """what the notary found, with the file"""
    seconds: float = 0.0


class _Issue(msgspec.Struct):
    message: str = ""
    path: str | None = None


class _Log(msgspec.Struct):
    """The notary's log, in which both tools agree."""

    status: str
    issues: list[_Issue] | None = None


class _Submission(msgspec.Struct):
    id: str


def is_notarized(run: Run, release: Release) -> bool:
    """Whether the notary accepted exactly this release."""
    found = _recorded(run, release)
    return found is not None and found.status == "accepted"


def notarize(run: Run, folder: Path) -> Notarized:
    """Submit a release that is signed with a Developer ID, and wait for the answer.

    Raises `ReleaseInvalid`, `SigningFailed`, `MissingTool`, `NotarizationFailed`.
    """
    release = replace(check(folder), verification="")
    programs = macho.files(folder, release)
    kind = codesignature.signing(programs.values())
    if kind != "developer-id":
        why = f"its files are signed: {kind}" if programs else f"it has no Mach-O file ({release.platform})"
        raise NotarizationFailed(
            f"{release.id} cannot be notarized: {why}", hint="./inv release.sign --set publish.signing=developer-id"
        )
    answer = _recorded(run, release)
    if answer is not None and answer.status == "accepted":
        return answer
    tool, file = _tool(run.config.publish), run.records_of(release.id) / RECORD
    with run.console.step(f"notarize {release.id}") as step:
        if answer is None or answer.status == "refused":
            step.update(detail="upload")
            with temporary.folder("notarize") as private:
                submission = tool.submit(_zipped(programs, release, private))
            answer = Notarized(
                release=release.id,
                content_sha256=content_digest(release),
                submission=submission,
                status="in progress",
            )
            records.write(file, answer)
        step.update(detail=f"wait for {answer.submission}")
        log = tool.answer(answer.submission, run.config.publish.notary_minutes)
    accepted = log.status == "Accepted"
    issues = tuple(f"{one.path or 'the archive'}: {one.message}" for one in log.issues or ())
    answer = replace(
        answer, status="accepted" if accepted else "refused", issues=issues, seconds=round(step.seconds, 1)
    )  # fmt: skip
    records.write(file, answer)
    if accepted and tool.codesign:
        for name, path in programs.items():
            words = (tool.codesign, "--verify", "--strict", "--check-notarization", "-R=notarized", str(path))
            if process.run(words, check=False, timeout=_ASK_S, failure=NotarizationFailed).returncode:
                run.console.warn(f"{name}: accepted, but Apple does not know it as notarized yet: {shlex.join(words)}")
    if not accepted:
        found = "; ".join(issues[:5]) or f"status {log.status}, without a reason"
        raise NotarizationFailed(
            f"{release.id}: Apple's notary refused it ({answer.submission}): {found}",
            hint="sign it again: ./inv release.sign --set publish.signing=developer-id",
        )
    return answer


def _recorded(run: Run, release: Release) -> Notarized | None:
    """The answer about this content, or the submission that waits for one."""
    try:
        found = records.read(run.records_of(release.id) / RECORD, Notarized)
    except RecordError:
        return None
    return found if found.content_sha256 == content_digest(release) else None


def _zipped(programs: dict[str, Path], release: Release, folder: Path) -> Path:
    """A zip of the Mach-O files, which are all that the notary judges."""
    target = folder / f"{release.id}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, path in programs.items():
            packed.write(path, f"{release.id}/{name}")
    return target


@dataclass(frozen=True)
class _Tool:
    """notarytool, or rcodesign, which ends with 0 whatever the answer is: so the answer is read from the log."""

    submitting: tuple[str, ...]
    waiting: tuple[str, ...]
    logging: tuple[str, ...]
    key: tuple[str, ...]
    limit: str
    """option for the longest wait in seconds"""
    codesign: str = ""
    """the program that asks Apple whether a file is notarized; on a Mac alone"""

    def submit(self, packed: Path) -> str:
        """Upload, and return the submission's id."""
        done = self._run((*self.submitting, *self.key, str(packed)), _UPLOAD_S)
        if found := _SUBMISSION.search(done.error_text):
            return found[1]
        try:
            return msgspec.json.decode(done.stdout, type=_Submission).id
        except records.UNREADABLE as error:
            raise NotarizationFailed(f"{self.submitting[0]} names no submission: {done.text.strip()[-200:]}") from error

    def answer(self, submission: str, minutes: float) -> _Log:
        """Wait for the answer."""
        limit = str(math.ceil(minutes * 60))
        again = "run it again: it asks for the same submission"
        try:
            self._run((*self.waiting, *self.key, self.limit, limit, submission), minutes * 60 + _ASK_S)
            done = self._run((*self.logging, *self.key, submission), _ASK_S)
            return msgspec.json.decode(done.stdout, type=_Log)
        except NotarizationFailed as error:
            raise NotarizationFailed(
                f"no answer about {submission} in {minutes:g} minutes: {error.message}", hint=error.hint or again
            ) from error
        except records.UNREADABLE as error:
            raise NotarizationFailed(f"{submission}: the notary's log is malformed: {error}", hint=again) from error

    def _run(self, words: tuple[str, ...], timeout: float) -> process.Captured:
        done = process.capture(words, check=False, timeout=timeout, failure=NotarizationFailed, what=words[0])
        if done.returncode != 0:
            output = f"{done.text}{done.error_text}".strip()
            hint = next((hint for said, hint in _HINTS.items() if said in output), "")
            said = (output.splitlines() or ["it printed nothing"])[-1]
            raise NotarizationFailed(f"{Path(words[0]).name} ended with {done.returncode}: {said}", hint=hint)
        return done


def _tool(config: PublishConfig) -> _Tool:
    """The program that the key is for: a .p8 file for notarytool, a .json file for rcodesign."""
    key = Path(config.notary_key).expanduser()
    if not config.notary_key or not key.is_file():
        raise NotarizationFailed(
            f"publish.notary_key: {config.notary_key or 'no key'}: there is no such file",
            hint="a key of App Store Connect: .p8 for notarytool, or the .json that "
            "rcodesign encode-app-store-connect-api-key makes of it",
        )
    if key.suffix == ".json":
        program = _found("rcodesign", "cargo install apple-codesign, which makes rcodesign")
        return _Tool(
            submitting=(program, "notary-submit"),
            waiting=(program, "notary-wait"),
            logging=(program, "notary-log"),
            key=("--api-key-file", str(key)),
            limit="--max-wait-seconds",
        )
    program = _found("xcrun", "xcode-select --install; elsewhere: rcodesign encode-app-store-connect-api-key")
    for name in ("notary_key_id", "notary_issuer"):
        if not getattr(config, name):
            raise NotarizationFailed(f"publish.{name} is not set", hint="App Store Connect shows it beside the key")
    return _Tool(
        submitting=(program, "notarytool", "submit", "--output-format", "json"),
        waiting=(program, "notarytool", "wait"),
        logging=(program, "notarytool", "log"),
        key=("--key", str(key), "--key-id", config.notary_key_id, "--issuer", config.notary_issuer),
        limit="--timeout",
        codesign=shutil.which("codesign") or "",
    )


def _found(name: str, hint: str) -> str:
    if not (found := shutil.which(name)):
        raise MissingTool(f"{name} was not found, so that the notary cannot be asked", hint=hint)
    return found
