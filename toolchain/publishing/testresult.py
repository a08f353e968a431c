"""Results of tests as in-toto's test-result: of a verification, of a validation, and of a first run.

Each says on which machine it was found. The platform of a first run under launchd's emulator is `emulator`, so that it
proves nothing about a Mac.
"""

from __future__ import annotations

import base64
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..build import content_digest
from ..core.delivery_errors import DocumentInvalid
from ..core.errors import RecordError, reason
from ..core.records import UNREADABLE, read, read_bytes, record, sha256_bytes
from ..proofs import RanOn, Verification
from ..stages import Release
from .published import Role

ROLES: tuple[Role, ...] = ("verification", "validation", "firstrun")
Result = Literal["PASSED", "WARNED", "FAILED"]
EMULATOR, MAC = "emulator", "macos-"
_WHOLE = "correctness.verify"
"""the first run's assumption that a release passes the whole verification"""
_NO_GPU = "a cache on the GPU, which was left out (verify.gpu)"
_LARGEST = 64 << 20
SUMMARY = "summary.json"
"""in the archive of a first run"""
_MACHINE = "urn:turboquant:machine:"


@record
class Outcome:
    """A test by its name."""

    name: str
    ok: bool


@record
class Validation:
    """The file of `--validation`: what was found of a release on real models. Further fields are kept, and not read."""

    release: str
    content_sha256: str
    """as in the release's verification"""
    ok: bool
    tests: tuple[Outcome, ...] = ()
    ran_on: RanOn | None = None


@record
class SignedProof:
    """What a signed statement says about tests of a release."""

    role: Role
    result: Result
    platform: str
    """of the machine, as in macos-arm64; `emulator`, or empty when the result does not say"""
    system: str
    same_files: bool
    """whether these very files were tested; a first run may have built them again, from the same sources"""
    key: str
    """fingerprint of who signed it"""

    @property
    def passed_on_a_mac(self) -> bool:
        """Whether everything passed, on a Mac."""
        return self.result == "PASSED" and self.platform.startswith(MAC)

    @classmethod
    def read(cls, predicate: Mapping[str, Any], role: Role, key: str, path: Path) -> SignedProof:
        """Out of a predicate. Raises `DocumentInvalid` for one of another role or shape."""
        try:
            found = msgspec.convert(predicate, _Predicate)
            tested, machine = found.configuration
        except (msgspec.ValidationError, ValueError) as error:
            raise DocumentInvalid(f"{path}: no result of a test: {error}", hint="./inv release.attest") from error
        if tested.name != role:
            raise DocumentInvalid(f"{path}: the result of {tested.name}, where that of {role} belongs")
        return cls(
            role=role,
            result=found.result,
            platform=str(machine.annotations.get("platform", "")),
            system=str(machine.annotations.get("system", "")),
            same_files=tested.annotations.get("same_files") is True,
            key=key,
        )


class _Descriptor(msgspec.Struct):
    name: str
    annotations: dict[str, Any] = {}


class _Predicate(msgspec.Struct):
    result: Result
    configuration: list[_Descriptor]


class _Assumption(msgspec.Struct):
    id: str
    status: str


class _Built(msgspec.Struct):
    id: str
    platform: str
    ollama_commit: str
    llama_cpp_commit: str
    series_sha256: str


class _FirstRun(msgspec.Struct):
    """What is needed of a first run's summary.json."""

    machine: str
    system: str
    complete: bool
    toolkit: str
    assumptions: list[_Assumption]
    release: _Built | None = None


@dataclass(frozen=True)
class _Tests:
    """Names of tests by what became of them."""

    passed: Sequence[str] = ()
    warned: Sequence[str] = ()
    failed: Sequence[str] = ()


def of_verification(verification: Verification, raw: bytes) -> dict[str, Any]:
    """The predicate of a verification; `raw`, the file with the record, is inside of it."""
    found = {_proof_name(one.kv_cache_type, one.option, one.model): one.ok for one in verification.proofs}
    found |= {f"checklist {one.number}: {one.name}": one.ok for one in verification.checklist}
    unknown = [f"checklist {one.number}: {one.name}" for one in verification.checklist if one.unknown]
    failed = [name for name, ok in found.items() if not ok and name not in unknown]
    if not verification.ok and not failed:
        failed = ["the whole verification"]
    on_a_mac = verification.ran_on is not None and verification.ran_on.platform.startswith(MAC)
    warned = [*unknown, *([_NO_GPU] if on_a_mac and verification.gpu is None else [])]
    result = _result(verification.ok and not failed, found)
    return _predicate(
        "verification",
        "WARNED" if warned and result == "PASSED" else result,
        _Tests([name for name, ok in found.items() if ok], warned, failed),
        verification.ran_on,
        {"release": verification.release, "same_files": True},
        raw,
    )


def of_validation(file: Path, release: Release) -> dict[str, Any]:
    """The predicate of a validation's record. Raises `DocumentInvalid` for that of another release or content."""
    try:
        found = read(file, Validation)
    except RecordError as error:
        raise DocumentInvalid(f"--validation: {error.message}", hint="name the JSON file of a validation") from error
    if (found.release, found.content_sha256) != (release.id, content_digest(release)):
        raise DocumentInvalid(
            f"--validation: {file} is of {found.release}, or of other content than {release.id}",
            hint="validate this release",
        )
    ok = found.ok and all(one.ok for one in found.tests)
    return _predicate(
        "validation",
        _result(ok, found.tests),
        _Tests([one.name for one in found.tests if one.ok], (), [one.name for one in found.tests if not one.ok]),
        found.ran_on,
        {"release": found.release, "same_files": True},
        read_bytes(file),
    )


def of_first_run(file: Path, release: Release) -> dict[str, Any]:
    """The predicate of a first run's archive; its digest stands for it.

    PASSED: complete, nothing refuted, and the whole verification confirmed. Raises `DocumentInvalid` for what is no
    such archive, and for the report on a release of other sources.
    """
    summary = _summary(file)
    built = summary.release
    if built is None:
        raise DocumentInvalid(
            f"--firstrun: {file} names no release that it tested",
            hint="./inv firstrun with the areas build and correctness, by this version of the toolkit",
        )
    sources = (release.platform, release.ollama_commit, release.llama_cpp_commit, release.series_sha256)
    if sources != (built.platform, built.ollama_commit, built.llama_cpp_commit, built.series_sha256):
        raise DocumentInvalid(
            f"--firstrun: {file} is of {built.id}, which has other sources than {release.id}",
            hint="./inv firstrun with the sources and the series of this release",
        )
    names: dict[str, list[str]] = {}
    for one in summary.assumptions:
        names.setdefault(one.status, []).append(one.id)
    refuted, confirmed = names.get("refuted", []), names.get("confirmed", [])
    whole = summary.complete and _WHOLE in confirmed
    platform = built.platform if summary.machine == "Mac" else EMULATOR
    return _predicate(
        "firstrun",
        "FAILED" if refuted else "PASSED" if whole else "WARNED",
        _Tests(passed=confirmed, failed=refuted),
        RanOn(platform=platform, system=summary.system),
        {
            "release": built.id,
            "same_files": built.id == release.id,
            "toolkit": summary.toolkit,
            "complete": summary.complete,
            "confirmed": len(confirmed),
            "refuted": len(refuted),
            "not_tested": len(names.get("not tested", [])),
        },
        digest=sha256_bytes(read_bytes(file, limit=_LARGEST)),
    )


def _predicate(
    role: Role,
    result: Result,
    tests: _Tests,
    ran_on: RanOn | None,
    stated: Mapping[str, Any],
    content: bytes = b"",
    digest: str = "",
) -> dict[str, Any]:
    tested: dict[str, Any] = {"name": role, "digest": {"sha256": digest or sha256_bytes(content)}}
    if content:
        tested |= {"mediaType": "application/json", "content": base64.b64encode(content).decode()}
    machine = ran_on or RanOn(platform="", system="")
    return {
        "result": result,
        "configuration": [
            {**tested, "annotations": dict(stated)},
            {
                "name": "machine",
                "uri": f"{_MACHINE}{machine.platform or 'unknown'}",
                "annotations": {"platform": machine.platform, "system": machine.system},
            },
        ],
        "passedTests": list(tests.passed),
        "warnedTests": list(tests.warned),
        "failedTests": list(tests.failed),
    }


def _result(ok: bool, tests: Collection[object]) -> Result:
    """What nothing was tested for did not pass."""
    return ("PASSED" if tests else "WARNED") if ok else "FAILED"


def _proof_name(kv_cache_type: str, option: str, model: str) -> str:
    return f"{kv_cache_type} on {model}" + (f" by the model's {option}" if option else "")


def summary_in(file: Path) -> bytes:
    """The summary in a first run's archive. Raises `ValueError` for an archive without one, or a damaged one."""
    try:
        if file.name.endswith(".zip"):
            with zipfile.ZipFile(file) as zipped, zipped.open(SUMMARY) as member:
                return member.read(_LARGEST)
        with tarfile.open(file, "r:gz") as archive:
            found = archive.extractfile(SUMMARY)
            return found.read(_LARGEST) if found else b""
    except (OSError, KeyError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(reason(error)) from error  # RuntimeError: encrypted, of an unknown method, links in a circle


def _summary(file: Path) -> _FirstRun:
    """As data."""
    try:
        return msgspec.json.decode(summary_in(file), type=_FirstRun)
    except UNREADABLE as error:
        raise DocumentInvalid(
            f"--firstrun: {file} is no report of a first run: {reason(error)}",
            hint="the archive that ./inv firstrun wrote",
        ) from error
