"""Notes on a release, out of records alone: what changed, what was measured, and what is not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from ..core import records, templates
from ..core.cachetypes.table import bits_per_value
from ..core.records import record
from ..core.run import Run
from ..proofs import RanOn
from ..stages import EditResult, FileChecksum, Rendered
from . import materials, packing, statements
from .attestation import store
from .changelog import prepend
from .materials import Records
from .published import RELEASE_FILE, PublishedRelease
from .results import MeasuredTable, tables_of
from .testresult import SignedProof

NOTES_FILE = "notes.md"
TEMPLATE = "notes.md.j2"
Change = Literal["added", "removed", "changed"]


@record
class PinChange:
    """An upstream. `was` and `was_commit` are empty without an earlier release."""

    target: str
    was: str
    was_commit: str
    now: str
    now_commit: str


@record
class EditChange:
    """An edit of the series that is new, gone, or has another target, file or outcome; `was` and `now` say which."""

    name: str
    change: Change
    was: str = ""
    now: str = ""


@record
class FileChange:
    """A file that the series changes otherwise than before; `was` and `now` are lines added and removed: +5 -2."""

    target: str
    path: str
    change: Change
    was: str = ""
    now: str = ""


@record
class TypeNote:
    """A cache type that the release adds."""

    name: str
    bits: float
    """per value"""
    db: float | None
    """signal to noise of random values, as the series states it"""
    new: bool


@record
class MeasuredCache:
    """A cache that the built server allocated, in a proof of the verification."""

    kv_cache_type: str
    head_size: int
    cells: int
    mib: float
    expected_mib: float
    ok: bool


@record
class Notes:
    """What is known of a release. `since` is the one that it is compared with; empty without one."""

    release: str
    version: str
    platform: str
    created: str
    since: str
    series_sha256: str
    series_was: str
    pins: tuple[PinChange, ...]
    edits_total: int
    edits: tuple[EditChange, ...]
    files: tuple[FileChange, ...]
    cache_types: tuple[TypeNote, ...]
    verified: bool
    ran_on: RanOn | None
    """where it was verified, if the record says so"""
    caches: tuple[MeasuredCache, ...]
    tables: tuple[MeasuredTable, ...]
    """of the pages of results that were named"""
    limits: tuple[str, ...]


def write(run: Run, named: str, since: str = "", results: Sequence[str] = (), changelog: str = "") -> Notes:
    """Make the notes on a release, by its id; of the newest one built for an empty name.

    `since` is the id of the release to compare with, `results` are pages of measured tables. Writes `notes.json` and
    `notes.md` beside the release's records, and the latter as a document of the release where that is packed.
    `changelog` is a file that gets an entry. Raises `RecordError`, `ReleaseInvalid`, `DocumentInvalid`, `ConfigError`.
    """
    identifier = materials.identified(run, named)
    now = materials.read_records(run, identifier)
    before = materials.read_records(run, materials.identified(run, since)) if since else None
    tables = tuple(table for name in results for table in tables_of(Path(name).expanduser()))
    folder = packing.staged(run) / identifier
    packed = materials.read_packed(folder, identifier) if (folder / RELEASE_FILE).is_file() else None
    notes = collect(now, before, tables, packed, _proofs(run, folder, packed))
    text = templates.render(TEMPLATE, notes=notes).encode()
    if changelog:
        prepend(Path(changelog).expanduser(), notes.release, notes.created, _entry(notes))
    records.write(now.folder / "notes.json", notes)
    records.write_bytes(now.folder / NOTES_FILE, text)
    if packed:
        with packing.locked(run):
            store(folder, materials.read_packed(folder, identifier), {"notes": (NOTES_FILE, text)})
    else:
        run.console.warn(f"{identifier} is not packed, so that its notes are in {now.folder / NOTES_FILE} only")
    return notes


def collect(
    now: Records,
    before: Records | None,
    tables: tuple[MeasuredTable, ...],
    packed: PublishedRelease | None,
    proofs: Sequence[SignedProof],
) -> Notes:
    """The notes as a record."""
    release, verification = now.release, now.verification
    known = before.release.cache_types if before else ()
    return Notes(
        release=release.id,
        version=release.version,
        platform=release.platform,
        created=release.created,
        since=before.release.id if before else "",
        series_sha256=release.series_sha256,
        series_was=before.release.series_sha256 if before else "",
        pins=tuple(_pins(now, before)),
        edits_total=len(now.rendered.edits),
        edits=tuple(_edits(now.rendered, before.rendered)) if before else (),
        files=tuple(_files(now.rendered, before.rendered)) if before else (),
        cache_types=tuple(
            TypeNote(name=one.name, bits=bits_per_value(one), db=one.db, new=before is not None and one not in known)
            for one in release.cache_types
        ),
        verified=bool(verification and verification.ok),
        ran_on=verification.ran_on if verification else None,
        caches=tuple(_caches(now)),
        tables=tables,
        limits=tuple(_limits(now, packed, proofs, measured=bool(tables))),
    )


def _pins(now: Records, before: Records | None) -> Iterator[PinChange]:
    olds = materials.upstreams(before.sources) if before else (None, None)
    for new, old in zip(materials.upstreams(now.sources), olds, strict=True):
        yield PinChange(
            target=new.name,
            was=old.describe if old else "",
            was_commit=old.commit if old else "",
            now=new.describe,
            now_commit=new.commit,
        )


def _edits(now: Rendered, before: Rendered) -> Iterator[EditChange]:
    new, old = ({one.name: _outcome(one) for one in rendered.edits} for rendered in (now, before))
    for name in sorted(new.keys() | old.keys()):
        if change := _change(name in old, name in new, old.get(name) != new.get(name)):
            yield EditChange(name=name, change=change, was=old.get(name, ""), now=new.get(name, ""))


def _outcome(edit: EditResult) -> str:
    return f"{edit.status} in {edit.file} of {edit.target}"


def _files(now: Rendered, before: Rendered) -> Iterator[FileChange]:
    new, old = (
        {(target.target, file.path): file for target in rendered.targets for file in target.files}
        for rendered in (now, before)
    )
    for key in sorted(new.keys() | old.keys()):
        is_now, was = new.get(key), old.get(key)
        differs = bool(is_now and was) and _differs(is_now, was)
        if change := _change(was is not None, is_now is not None, differs):
            yield FileChange(target=key[0], path=key[1], change=change, was=_lines(was), now=_lines(is_now))


def _differs(now: FileChecksum | None, was: FileChecksum | None) -> bool:
    """Whether the series does something else with a file; what upstream changed in it alone does not count."""
    assert now
    assert was
    counts = (now.inserted, now.deleted) != (was.inserted, was.deleted)
    return counts or (now.pristine == was.pristine and now.rendered != was.rendered)


def _lines(file: FileChecksum | None) -> str:
    return f"+{file.inserted} -{file.deleted}" if file else ""


def _change(before: bool, now: bool, differs: bool) -> Change | None:
    if before and now:
        return "changed" if differs else None
    return "added" if now else "removed"


def _caches(now: Records) -> Iterator[MeasuredCache]:
    for proof in now.verification.proofs if now.verification else ():
        for cache in proof.caches:
            yield MeasuredCache(
                kv_cache_type=proof.kv_cache_type + (f" (option {proof.option})" if proof.option else ""),
                head_size=proof.head_size,
                cells=cache.cells,
                mib=cache.mib,
                expected_mib=round(cache.expected_bytes / (1 << 20), 3),
                ok=proof.ok,
            )


def _limits(
    now: Records, packed: PublishedRelease | None, proofs: Sequence[SignedProof], *, measured: bool
) -> Iterator[str]:
    release, verification = now.release, now.verification
    ran_on = verification.ran_on if verification else None
    if verification is None:
        yield "It was not verified."
    elif not verification.ok:
        yield "Its verification failed."
    elif ran_on is None:
        yield "It was verified on a machine that the record does not name."
    on_a_mac = any(one.passed_on_a_mac for one in proofs)
    here = bool(verification and verification.ok and ran_on and ran_on.platform.startswith("macos-"))
    if not on_a_mac and not here:
        yield "No Mac has run it."
    for one in proofs:
        if one.result != "PASSED":
            yield f"Its {one.role} on {one.platform or 'an unnamed machine'} ended with {one.result}."
        elif not one.same_files:
            yield f"Its {one.role} tested another build of the same sources."
    if not (verification and verification.gpu and verification.gpu.comparisons):
        yield "No GPU was part of its verification."
    if not now.sources.pin.exact:
        yield f"Its llama.cpp is {now.sources.llama_cpp.describe}, and not {now.sources.pin.name}, which Ollama pins."
    if release.platform.startswith("macos-") and packed and not packed.notarized:
        yield f"Apple has not notarized it; its programs are signed: {packed.signing}."
    if measured:
        yield "The measured tables are of the builds that their pages name, which need not be this release."
    else:
        yield "Its speed and the quality of its answers were not measured."
    yield "Its provenance is of SLSA build level 1: stated and signed by who built it."


def _proofs(run: Run, folder: Path, packed: PublishedRelease | None) -> tuple[SignedProof, ...]:
    """What signed statements of the packed release say, where the keys to check them are known."""
    if packed is None or not statements.PREDICATES.keys() & packed.documents.keys():
        return ()
    if not run.config.publish.signers:
        run.console.warn("publish.signers is not set, so that the notes use no signed statement")
        return ()
    signers, revoked = (Path(name).expanduser() for name in (run.config.publish.signers, run.config.publish.revoked))
    return statements.proof_of(folder, packed, signers, revoked if run.config.publish.revoked else None)


def _entry(notes: Notes) -> str:
    """The notes in a few sentences, for a changelog."""
    pins = " and ".join(
        f"{one.target} {one.now}" + (f" (was {one.was})" if one.was and one.was_commit != one.now_commit else "")
        for one in notes.pins
    )
    parts = [f"for {notes.platform}, of {pins}."]
    if notes.since:
        counts = Counter(one.change for one in notes.edits)
        said = ", ".join(f"{counts[change]} {change}" for change in sorted(counts)) or "unchanged"
        parts.append(f"Since {notes.since}: edits {said}; the series differs in {len(notes.files)} files.")
    new = [one.name for one in notes.cache_types if one.new]
    parts += [f"New or changed cache types: {', '.join(new)}."] if new else []
    return " ".join([*parts, *notes.limits])
