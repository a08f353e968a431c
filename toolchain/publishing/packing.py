"""`release.pack`: what is published of a release, staged in the workspace.

The folder packed/ID appears by one rename. It holds the archive, the probe model for health checks and release.json,
and is made anew only when one of them is not what it should be. Documents that a later step added stay.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..build import check, macho
from ..core import locks, records, temporary
from ..core.console import Console
from ..core.errors import RecordError, Unverified
from ..core.records import record
from ..core.run import Run
from ..deploy import proof
from ..proofs import Verification
from ..serving.probe_model import write_probe
from ..stages import Release
from . import archive, codesignature, notary
from .published import RELEASE_FILE, Archive, Document, Publication, PublishedRelease

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


def released(publication: Publication) -> Iterator[PublishedRelease]:
    """All releases of a publication, unverified. Raises `RecordError`."""
    for path in publication.release_files():
        yield records.read(path, PublishedRelease, follow=False)


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Only one run at a time changes what is packed. Raises `LockHeld`."""
    busy = f"{staged(run)}: another run is packing"
    with locks.held(staged(run) / ".lock", busy, hint="wait until it ends", timeout_s=_LOCK_WAIT_S):
        yield


def pack(
    run: Run, folder: Path, verification: Verification | None, *, sequence: int = 0, unverified: bool = False
) -> Packed:
    """Stage a verified release directory. The same release gives the same tar, on every machine.

    `sequence` 0: the next one of the publication. Raises `ReleaseInvalid`, `Unverified`, `SigningFailed` (a release
    that is signed in part), `RecordError` (a damaged publication), `LockHeld`; then nothing is changed.
    """
    release = replace(check(folder), verification="")
    _require(release, verification, run.console, unverified=unverified)
    target = staged(run) / release.id
    with locked(run):
        facts = _facts(run, folder, release, sequence or _sequence(publication(run), release))
        if before := _before(target, release):
            stated = facts(archive=before.archive, documents=before.documents)
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
            stated = facts(archive=packed, documents={"probe": document(made / PROBE)})
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
    found = {one.id: one for one in released(published)}
    own = found.get(release.id)
    if own and own.manifest_sha256 == _manifest_digest(release):
        return own.sequence
    return max((one.sequence for one in found.values()), default=0) + 1


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


def _facts(run: Run, folder: Path, release: Release, sequence: int) -> partial[PublishedRelease]:
    """All of release.json but the archive and the documents."""
    programs = macho.files(folder, release)
    signing = codesignature.signing(programs.values())
    if programs and signing == "none":
        run.console.warn(f"{release.id}: its programs are not signed, so that a Mac with an Apple chip ends them")
    return partial(
        PublishedRelease,
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
        signing=signing,
        notarized=notary.is_notarized(run, release),
        files=release.files,
        manifest_sha256=_manifest_digest(release),
        unsigned={name: macho.unsigned_digest(path) for name, path in programs.items()},
    )
