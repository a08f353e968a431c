"""Attesting a packed release: its bill of materials and its signed statements become documents of its release.json.

All documents are made and signed in a temporary folder first, so that a failure leaves the packed release as it was.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core import extras, records, temporary
from ..core.delivery_errors import SigningFailed
from ..core.records import record
from ..core.run import Run
from . import gomodules, packing, provenance, sbom, signature, statements, testresult
from . import materials as gathered
from .published import RELEASE_FILE, STATEMENT_NAMESPACE, Document, PublishedRelease, Role

SBOM_FILE = "sbom.cdx.json"
_MAKING = ".documents"


@record
class Attested:
    """The documents of a packed release."""

    release: str
    folder: Path
    documents: dict[Role, Document]
    results: dict[Role, testresult.Result]
    """of the tests whose statements were made now"""
    go_modules: int
    """0 when bin/ollama does not say"""


def attest(run: Run, named: str = "", validation: str = "", firstrun: str = "") -> Attested:
    """Write the bill of materials and the statements of a packed release, and list them in its release.json.

    `validation` is the JSON file of a validation, `firstrun` the archive of a first run. A statement that was made
    before and is still about this release stays. The same records and key give the same files, with a key whose
    signatures are deterministic (Ed25519). Raises `MissingExtra`, the errors of `materials.gather`, `gomodules.read`,
    `sbom.make`, `testresult` and `signature.sign`.
    """
    extras.require("release", "the bill of materials")
    key = _key(run)
    with packing.locked(run), run.console.step("attest") as step:
        found = gathered.gather(run, named)
        release = found.release
        predicates: dict[Role, dict[str, Any]] = {"provenance": provenance.predicate(found)}
        if found.records.verification:
            predicates["verification"] = testresult.of_verification(
                found.records.verification, found.records.verification_file.read_bytes()
            )
        else:
            run.console.warn(f"{release.id} was never verified, so that no statement says so: ./inv verify")
        if validation:
            predicates["validation"] = testresult.of_validation(Path(validation).expanduser(), release)
        if firstrun:
            predicates["firstrun"] = testresult.of_first_run(Path(firstrun).expanduser(), release)
        step.update(detail="bill of materials")
        go = gomodules.read(found.directory / sbom.PROGRAM)
        bill = sbom.make(found, go)
        step.update(detail="statements")
        documents: dict[Role, tuple[str, bytes]] = {"sbom": (SBOM_FILE, bill)}
        for role, predicate in predicates.items():
            documents[role] = statements.file_name(role), statements.make(found.packed, role, predicate)
        stored = store(found.folder, found.packed, documents, key)
    return Attested(
        release=release.id,
        folder=found.folder,
        documents=stored.documents,
        results={role: predicate["result"] for role, predicate in predicates.items() if "result" in predicate},
        go_modules=len(go.modules) if go else 0,
    )


def store(
    folder: Path, packed: PublishedRelease, documents: Mapping[Role, tuple[str, bytes]], key: Path | None = None
) -> PublishedRelease:
    """Put documents (name and content) into a packed release, statements with their signatures, and list them.

    Statements that are listed already and are about another release or archive are dropped from the list. `key` is
    needed for statements alone. Hold `packing.locked`.
    """
    listed = {
        role: one
        for role, one in packed.documents.items()
        if role not in statements.PREDICATES or statements.about(folder / one.name, packed, role)
    }
    with temporary.folder("documents", within=folder.parent / _MAKING) as made:
        for role, (name, content) in documents.items():
            path = made / name
            records.write_bytes(path, content)
            if role in statements.PREDICATES:
                if key is None:
                    raise ValueError(f"{role} needs a key")
                signature.sign(path, key, STATEMENT_NAMESPACE)
            listed[role] = Document(name=name, size=len(content), sha256=records.sha256_bytes(content))
        for path in sorted(made.iterdir()):
            records.write_bytes(folder / path.name, path.read_bytes())
    stored = dataclasses.replace(packed, documents=dict(sorted(listed.items())))
    if stored != packed or not os.path.lexists(folder / RELEASE_FILE):
        records.write(folder / RELEASE_FILE, stored)
    return stored


def _key(run: Run) -> Path:
    if not run.config.publish.key:
        raise SigningFailed("publish.key is not set, and statements are signed", hint="--set publish.key=KEY")
    return Path(run.config.publish.key).expanduser()
