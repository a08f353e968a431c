"""`release.pack`: what is published of a release, staged in the workspace.

The folder packed/ID appears by one rename. It holds the archive, the probe model for health checks and release.json,
and is made anew only when one of them is not what it should be. Documents that a later step added stay.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..build import check
from ..core import locks, records, temporary
from ..core.console import Console
from ..core.errors import RecordError, Unverified
from ..core.records import record
from ..core.run import Run
from ..deploy import proof
from ..proofs import Verification
from ..serving.probe_model import write_probe
from ..stages import Release
from . import archive, codesignature, macho, notary
from .published import RELEASE_FILE, Archive, Document, Publication, PublishedRelease, Role

PROBE = "probe.gguf"
PROBE_SIZES = {"head_size": 128, "heads": 2, "kv_heads": 1, "layers": 8, "context": 2048, "seed": 1}
"""of the model that a Mac's health check loads; eight layers hold rules for four at either end"""
_MAKING = ".making"
_LOCK_WAIT_S = 600.0


@record
class Packed:
    """A release, staged for publication in `folder`."""

    folder: Path
    release: PublishedRelease
    """as in its release.json"""
    new: bool
    """false when it was packed before and nothing changed"""


def staged(run: Run) -> Path:
    """The folder of packed releases."""
    return run.workspace / "packed"


def publication(run: Run) -> Publication:
    """The publication in the folder that the settings name."""
    return Publication(Path(run.config.publish.folder or run.workspace / "publication").expanduser().absolute())


def pack(
    run: Run, folder: Path, verification: Verification | None, *, sequence: int = 0, unverified: bool = False
) -> Packed:
    """Stage a verified release directory. The same release gives the same tar, on every machine.

    `sequence` 0: the next one of the publication. Raises `ReleaseInvalid`, `Unverified`, `RecordError` (a damaged
    publication), `LockHeld`; then nothing is changed.
    """
    release = replace(check(folder), verification="")
    _require(release, verification, run.console, unverified=unverified)
    target = staged(run) / release.id
    busy = f"{staged(run)}: another run is packing"
    with locks.held(staged(run) / ".lock", busy, hint="wait until it ends", timeout_s=_LOCK_WAIT_S):
        number = sequence or _sequence(publication(run), release)
        if before := _before(target, release):
            stated = _stated(run, folder, release, number, before.archive, before.documents)
            if stated != before:
                records.write(target / RELEASE_FILE, stated)
            return Packed(folder=target, release=stated, new=stated != before)
        with temporary.folder(release.id, within=staged(run) / _MAKING) as private:
            made = private / release.id
            made.mkdir(0o755)
            made.chmod(0o755)
            with run.console.step(f"pack {release.id}") as step:
                packed = archive.write(folder, release, made / f"{release.id}{archive.SUFFIX}", step)
            write_probe(made / PROBE, **PROBE_SIZES)
            for file in made.iterdir():
                file.chmod(0o644)
            stated = _stated(run, folder, release, number, packed, {"probe": document(made / PROBE)})
            records.write(made / RELEASE_FILE, stated)
            if os.path.lexists(target):
                target.rename(private / "before")
            made.rename(target)
            records.flush_directory(staged(run))
    return Packed(folder=target, release=stated, new=True)


def document(path: Path) -> Document:
    """A file of a publication."""
    return Document(name=path.name, size=path.stat().st_size, sha256=records.sha256_file(path))


def _require(release: Release, verification: Verification | None, console: Console, *, unverified: bool) -> None:
    if why := proof.doubt(release, verification):
        if not unverified:
            raise Unverified(
                f"{release.id}: {why}",
                hint=f"./inv verify --release {release.id}, or pack it anyway with --unverified",
            )
        console.warn(f"{release.id}: {why}; packing it anyway")
    elif verification and not verification.gpu and release.platform.startswith("macos") and release.cache_types:
        console.warn(f"{release.id}: verified without a GPU (verify.gpu), so nothing shows that it computes on one")


def _sequence(published: Publication, release: Release) -> int:
    """The release's own sequence if it is published already, else the next one."""
    highest = 0
    for file in sorted(published.releases.glob(f"*/{RELEASE_FILE}")):
        found = records.read(file, PublishedRelease)
        if found.id == release.id and found.manifest_sha256 == _manifest_digest(release):
            return found.sequence
        highest = max(highest, found.sequence)
    return highest + 1


def _before(target: Path, release: Release) -> PublishedRelease | None:
    """What was staged before, with those documents that are still there; None if archive or probe are not."""
    try:
        found = records.read(target / RELEASE_FILE, PublishedRelease)
    except RecordError:
        return None
    documents = {role: one for role, one in found.documents.items() if _is(target / one.name, one)}
    if found.manifest_sha256 != _manifest_digest(release) or "probe" not in documents:
        return None
    return replace(found, documents=documents) if _is(target / found.archive.name, found.archive) else None


def _is(path: Path, expected: Document | Archive) -> bool:
    return path.is_file() and path.stat().st_size == expected.size and records.sha256_file(path) == expected.sha256


def _manifest_digest(release: Release) -> str:
    return records.sha256_bytes(archive.manifest_bytes(release))


def _stated(
    run: Run, folder: Path, release: Release, sequence: int, packed: Archive, documents: dict[Role, Document]
) -> PublishedRelease:
    programs = macho.files(folder, release)
    return PublishedRelease(
        id=release.id,
        sequence=sequence,
        version=release.version,
        platform=release.platform,
        min_macos=macho.minimum_macos(programs.values()),
        created=release.created,
        ollama_commit=release.ollama_commit,
        llama_cpp_commit=release.llama_cpp_commit,
        llama_cpp_build=release.llama_cpp_build,
        series_sha256=release.series_sha256,
        signing=codesignature.signing(programs.values()),
        notarized=notary.is_notarized(run, release),
        archive=packed,
        files=release.files,
        manifest_sha256=_manifest_digest(release),
        unsigned={name: macho.unsigned_digest(path) for name, path in programs.items()},
        documents=documents,
    )
