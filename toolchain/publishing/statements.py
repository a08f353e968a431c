"""Statements about a release, in in-toto's form, each signed for itself; and what they prove.

A statement names the archive, its tar and the manifest in it by their digests. Where release.json
lists the file, its digest must agree, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..core.delivery_errors import DocumentInvalid, Tampered
from ..core.records import UNREADABLE, read_bytes, sha256_bytes, to_json
from . import signature
from .published import STATEMENT_NAMESPACE, PublishedRelease, Role
from .testresult import ROLES, SignedProof

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
PREDICATES: dict[Role, str] = {"provenance": PROVENANCE, **dict.fromkeys(ROLES, TEST_RESULT)}
_LIMIT = 16 << 20
"""bytes of a statement"""


class _Subject(msgspec.Struct):
    name: str
    digest: dict[str, str]


class _Statement(msgspec.Struct):
    type: str = msgspec.field(name="_type")
    subject: list[_Subject]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: dict[str, Any]


@dataclass(frozen=True)
class SignedStatement:
    """A statement whose signature is valid and whose subject is the release. `key` is its signer's fingerprint."""

    predicate_type: str
    predicate: Mapping[str, Any]
    key: str
    sha256: str
    """of its file"""


def file_name(role: Role) -> str:
    """The file of a role's statement."""
    return f"{role}.intoto.json"


def subjects(release: PublishedRelease) -> dict[str, str]:
    """Digests of what a statement about a release is about, by name."""
    archive = release.archive
    return {
        archive.name: archive.sha256,
        f"{release.id}.tar": archive.tar_sha256,
        f"{release.id}/manifest.json": release.manifest_sha256,
    }


def make(release: PublishedRelease, role: Role, predicate: Mapping[str, Any]) -> bytes:
    """A statement, not signed yet."""
    stated = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects(release).items()],
        "predicateType": PREDICATES[role],
        "predicate": predicate,
    }
    return to_json(stated).encode()


def read_statement(
    path: Path, signers: Path, release: PublishedRelease, role: Role, *, revoked: Path | None = None
) -> SignedStatement:
    """Verify a statement's signature, then its type and that it is about this release, and return it.

    Raises the errors of `signature.verify`, and `DocumentInvalid` for a statement of another kind or release.
    """
    data, key = signature.read_verified(path, STATEMENT_NAMESPACE, signers, revoked=revoked, limit=_LIMIT)
    found = _decoded(data, path, role)
    check_subjects(found, release, path)
    return SignedStatement(
        predicate_type=found.predicate_type, predicate=found.predicate, key=key, sha256=sha256_bytes(data)
    )


def about(path: Path, release: PublishedRelease, role: Role) -> bool:
    """Whether an unverified file is a statement of that kind about this release."""
    try:
        check_subjects(_decoded(read_bytes(path, limit=_LIMIT), path, role), release, path)
    except (OSError, DocumentInvalid):
        return False
    return True


def check_subjects(statement: _Statement, release: PublishedRelease, path: Path) -> None:
    """Raise `DocumentInvalid` unless a statement is about this release."""
    stated = {one.name: one.digest.get("sha256", "") for one in statement.subject}
    for name, digest in subjects(release).items():
        if name not in stated:
            raise DocumentInvalid(
                f"{path}: is about {', '.join(stated) or 'nothing'}, not about {release.id}",
                hint="./inv release.attest for this release",
            )
        if stated[name] != digest:
            raise DocumentInvalid(
                f"{path}: is about another {name} than that of {release.id}", hint="./inv release.attest after packing"
            )


def proof_of(
    folder: Path, release: PublishedRelease, signers: Path, revoked: Path | None = None
) -> tuple[SignedProof, ...]:
    """The signed results of tests that a release lists, read in its folder. Empty when it lists none.

    Raises `Tampered` for a file that is not the one that the release lists, and the errors of `read_statement`.
    """
    return tuple(_proof(folder, release, signers, revoked, role) for role in ROLES if role in release.documents)


def _proof(folder: Path, release: PublishedRelease, signers: Path, revoked: Path | None, role: Role) -> SignedProof:
    listed = release.documents[role]
    path = folder / listed.name
    found = read_statement(path, signers, release, role, revoked=revoked)
    if found.sha256 != listed.sha256:
        raise Tampered(f"{path}: not the file that release.json lists", hint="fetch it again")
    return SignedProof.read(found.predicate, role, found.key, path)


def _decoded(data: bytes, path: Path, role: Role) -> _Statement:
    try:
        found = msgspec.json.decode(data, type=_Statement)
    except UNREADABLE as error:
        raise DocumentInvalid(f"{path}: no statement of in-toto: {error}", hint="./inv release.attest") from error
    wanted = (STATEMENT, PREDICATES[role])
    if (found.type, found.predicate_type) != wanted:
        raise DocumentInvalid(
            f"{path}: a {found.type} with {found.predicate_type}, where {' with '.join(wanted)} belongs",
            hint="./inv release.attest",
        )
    return found
