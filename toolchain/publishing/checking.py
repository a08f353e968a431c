"""`release.verify`: what a client would check of a packed folder, a published release or a channel, and each refusal.

The order is that of the provisioner, so that both say the same of the same publication: signature, name, clock, expiry,
sequence, revocation, minimum, release.json, archive, members.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from ..core import extras, locks, records, temporary
from ..core.delivery_errors import (
    CannotVerify,
    ChannelExpired,
    ClockWrong,
    DocumentInvalid,
    ForgeUnavailable,
    OlderSequence,
    ReleaseRevoked,
    Tampered,
)
from ..core.errors import RecordError
from ..core.records import record
from ..core.run import Run
from . import channel as channels
from . import download, published, signature, unpacking
from .published import RELEASE_FILE, SIGNATURE_SUFFIX, Archive, Channel, Document, PublishedRelease

R = TypeVar("R", Channel, PublishedRelease)
_LARGEST = 4 << 20
"""bytes of release.json and of the provisioner"""
_SLACK = timedelta(days=1)
_PLACE = "are the place and the channel right? --channel NAME"
_AGAIN = "fetch it again; if it stays, tell its publisher"
_CLOCK = "set this machine's clock: sudo sntp -sS time.apple.com, or timedatectl set-ntp true"
_SEEN = "channels-seen.json"


@record
class Confirmed:
    """One thing that was checked."""

    what: str
    found: str


@record
class Verified:
    """What `release.verify` found in order."""

    kind: Literal["packed", "release", "channel"]
    where: str
    release: str
    sequence: int
    version: str
    channel: str = ""
    channel_sequence: int = 0
    expires: str = ""
    points: tuple[Confirmed, ...]


@record
class _Seen:
    """channels-seen.json: the highest sequence of each channel, by its URL and name."""

    sequences: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Trust:
    """What a client knows beforehand."""

    signers: Path | None
    """an allowed_signers file; None only for what is not signed yet"""
    revoked: Path | None = None
    tuf_root: Path | None = None


@dataclass
class _Check:
    """One verification."""

    run: Run
    origin: download.Source
    trust: Trust
    points: list[Confirmed] = field(default_factory=list)

    def note(self, what: str, found: str) -> None:
        """Keep what was found in order."""
        self.points.append(Confirmed(what=what, found=found))

    def read(self, name: str, most: int) -> bytes:
        """A file that must be there."""
        try:
            return download.read(self.origin, name, most)
        except FileNotFoundError as error:
            raise ForgeUnavailable(f"{self.origin.where}/{name} is not there", hint=_PLACE) from error

    def signature(self, name: str) -> bytes:
        """The signature of a file."""
        try:
            return download.read(self.origin, name + SIGNATURE_SUFFIX, channels.LARGEST)
        except FileNotFoundError as error:
            raise CannotVerify(
                f"{self.origin.where}/{name}: it is not signed", hint="a publisher signs by ./inv release.publish"
            ) from error

    def verify(self, name: str, data: bytes, namespace: str) -> None:
        """Check the signature of a file."""
        if self.trust.signers is None:
            raise CannotVerify(
                f"{self.origin.where}/{name}: publish.signers is not set, so no key is trusted",
                hint="take allowed_signers from its publisher by a way that you trust: --signers FILE",
            )
        where = f"{self.origin.where}/{name}"
        key = signature.verify(
            data, self.signature(name), namespace, self.trust.signers, name=where, revoked=self.trust.revoked
        )
        self.note(f"signature of {name}", f"{key}, for {namespace}")

    def decode(self, data: bytes, kind: type[R], name: str) -> R:
        """A statement whose signature was verified. Raises `DocumentInvalid`."""
        try:
            return msgspec.json.decode(data, type=kind)
        except records.UNREADABLE as error:
            raise DocumentInvalid(
                f"{self.origin.where}/{name}: signed, but no {kind.__name__}: {error}", hint="tell its publisher"
            ) from error


def verify(
    run: Run, place: str, trust: Trust, *, name: str = "", unsigned: bool = False, files: bool = True
) -> Verified:
    """Verify a packed folder, a published release, or the channel `name` of a publication; `place` is a folder or URL.

    `unsigned` allows a packed folder, which is signed only when it is published; without `files` neither archive nor
    documents are fetched. Raises a distinct error for each refusal: `Tampered`, `CannotVerify`, `UnknownKey`,
    `KeyRevoked`, `WrongNamespace`, `ChannelExpired`, `OlderSequence`, `ReleaseRevoked`, `ArchiveUnsafe`, `ClockWrong`,
    `DocumentInvalid`, `ForgeUnavailable`.
    """
    folder = _release_in(place, name, unsigned=unsigned)
    check = _Check(run, download.source(folder or place, run.config.publish.timeout_s), trust)
    if not folder:
        return _channel(check, channels.checked_name(name or run.config.publish.channel), files=files)
    data = check.read(RELEASE_FILE, _LARGEST)
    if unsigned:
        check.note("signature", "none was asked for")
    else:
        check.verify(RELEASE_FILE, data, published.RELEASE_NAMESPACE)
    release = check.decode(data, PublishedRelease, RELEASE_FILE)
    if files:
        _files(check, release, "")
    return Verified(
        kind="packed" if unsigned else "release",
        where=check.origin.where,
        release=release.id,
        sequence=release.sequence,
        version=release.version,
        points=tuple(check.points),
    )


def _release_in(place: str, name: str, *, unsigned: bool) -> str:
    """The folder or URL of a release, where that is meant; empty for a publication.

    A server has no say in it: else it could offer an old release, properly signed, instead of the channel.
    """
    base, _, last = place.rstrip("/").rpartition("/")
    if name:
        return ""
    if last == RELEASE_FILE:
        return base or "/"
    named = unsigned or base.rpartition("/")[2] == "releases"
    here = "://" not in place and (Path(place).expanduser() / RELEASE_FILE).is_file()
    return place if named or here else ""


def _channel(check: _Check, name: str, *, files: bool) -> Verified:
    """What a Mac does before it installs."""
    statement = _statement(check, name)
    folder = f"releases/{statement.release}"
    path = f"{folder}/{RELEASE_FILE}"
    data = check.read(path, _LARGEST)
    if records.sha256_bytes(data) != statement.release_sha256:
        raise Tampered(f"{check.origin.where}/{path}: not the one that {name} names", hint=_AGAIN)
    check.verify(path, data, published.RELEASE_NAMESPACE)
    release = check.decode(data, PublishedRelease, path)
    if (release.id, release.sequence) != (statement.release, statement.release_sequence):
        raise DocumentInvalid(
            f"{check.origin.where}/{path}: {release.id} of sequence {release.sequence}, and {name} states "
            f"{statement.release} of sequence {statement.release_sequence}",
            hint="tell its publisher",
        )
    if check.trust.tuf_root:
        _by_tuf(check, statement, {path: data})
    if files:
        _files(check, release, f"{folder}/")
    _provisioner(check, statement)
    return Verified(
        kind="channel",
        where=check.origin.where,
        release=release.id,
        sequence=release.sequence,
        version=release.version,
        channel=name,
        channel_sequence=statement.sequence,
        expires=statement.expires,
        points=tuple(check.points),
    )


def _statement(check: _Check, name: str) -> Channel:
    """The channel's statement, which is signed, of this channel, in force, and no older than what was seen."""
    path = f"channels/{name}.json"
    where = f"{check.origin.where}/{path}"
    data = _consistent(check, path)
    statement = check.decode(data, Channel, path)
    if statement.channel != name:
        raise Tampered(f"{where}: it is of the channel {statement.channel!r}, served in its place", hint=_AGAIN)
    _in_force(check, statement, where)
    with _seen(check.run) as seen:
        key = f"{check.origin.where} {name}"
        if statement.sequence < (highest := seen.sequences.get(key, 0)):
            raise OlderSequence(
                f"{where}: its sequence is {statement.sequence}, and {highest} was seen before",
                hint=f"somebody withholds the newer one; where its publisher started anew, delete WORKSPACE/{_SEEN}",
            )
        seen.sequences[key] = statement.sequence
    check.note("sequence", f"{statement.sequence}; highest seen before: {highest or 'none'}")
    if statement.release in statement.revoked:
        raise ReleaseRevoked(f"{where}: it revokes {statement.release}, which it names", hint="wait for the next one")
    if statement.release_sequence < statement.minimum_sequence:
        raise OlderSequence(
            f"{where}: {statement.release} has sequence {statement.release_sequence}, below the minimum of "
            f"{statement.minimum_sequence}",
            hint="wait for the next one",
        )
    check.note("release", f"{statement.release}, not revoked, minimum {statement.minimum_sequence}")
    return statement


def _consistent(check: _Check, path: str) -> bytes:
    """A statement that fits its signature: the publisher may have changed both between two requests, so try twice."""
    try:
        data = check.read(path, channels.LARGEST)
        check.verify(path, data, published.CHANNEL_NAMESPACE)
    except Tampered:
        data = check.read(path, channels.LARGEST)
        check.verify(path, data, published.CHANNEL_NAMESPACE)
    return data


def _in_force(check: _Check, statement: Channel, where: str) -> None:
    """The clock is right, and the statement has not expired. The server's clock only ever makes us refuse."""
    now, date = datetime.now(UTC), check.origin.date
    issued, expires = (channels.moment(text, where) for text in (statement.issued, statement.expires))
    if date and abs(now - date) > _SLACK:
        raise ClockWrong(f"this machine's clock says {now:%Y-%m-%d %H:%M}, and the server's {date:%Y-%m-%d %H:%M}, UTC",
                         hint=_CLOCK)  # fmt: skip
    if issued > now + _SLACK:
        raise ClockWrong(f"{where}: issued {statement.issued}, and this machine's clock says {now:%Y-%m-%d %H:%M} UTC",
                         hint=_CLOCK)  # fmt: skip
    if expires <= now:
        raise ChannelExpired(
            f"{where}: expired {statement.expires}, so a newer one may be withheld",
            hint="its publisher has to run ./inv release.refresh; or is this machine's clock ahead?",
        )
    check.note("validity", f"issued {statement.issued}, expires {statement.expires}")


@contextmanager
def _seen(run: Run) -> Iterator[_Seen]:
    """The highest sequences so far, which are written unless something is raised."""
    path = run.workspace / _SEEN
    with locks.held(path.with_name(f".{_SEEN}.lock"), f"{path}: another run reads it", hint="wait", timeout_s=60.0):
        try:
            seen = records.read(path, _Seen) if path.exists() else _Seen()
        except RecordError as error:
            raise RecordError(error.message, hint=f"look at {path}; without it an older statement passes") from error
        yield seen
        records.write(path, seen)


def _files(check: _Check, release: PublishedRelease, prefix: str) -> None:
    """The archive with all its members, and the documents."""
    with temporary.folder("verify") as folder:
        packed = folder / release.archive.name
        with check.run.console.step(f"verify {release.archive.name}"):
            _file(check, prefix, release.archive, packed)
            unpacking.unpack(packed, release, folder / "unpacked", check.run.console)
    check.note("archive", f"{release.archive.size} bytes, sha256 {release.archive.sha256}")
    check.note("members", f"{len(release.files)} files, as in the manifest")
    for role, document in release.documents.items():
        with temporary.folder("verify") as folder:
            _file(check, prefix, document, folder / document.name)
            if document.name.endswith(".intoto.json") and check.trust.signers:
                check.verify(
                    f"{prefix}{document.name}", (folder / document.name).read_bytes(), published.STATEMENT_NAMESPACE
                )
        check.note(role, f"{document.name}, {document.size} bytes")


def _file(check: _Check, prefix: str, stated: Archive | Document, target: Path) -> None:
    """Fetch a file that release.json states, and compare it. Raises `Tampered`."""
    name = f"{prefix}{stated.name}"
    try:
        with target.open("wb") as file:
            download.save(check.origin, name, stated.size, file)
    except FileNotFoundError as error:
        raise ForgeUnavailable(f"{check.origin.where}/{name} is not there", hint=_AGAIN) from error
    if not published.is_as_stated(target, stated):
        raise Tampered(f"{check.origin.where}/{name}: its content is not what {RELEASE_FILE} states", hint=_AGAIN)


def _provisioner(check: _Check, statement: Channel) -> None:
    name = f"provisioners/{statement.tq_sha256}.sh"
    data = check.read(name, _LARGEST)
    check.verify(name, data, published.PROVISIONER_NAMESPACE)
    if records.sha256_bytes(data) != statement.tq_sha256:
        raise Tampered(f"{check.origin.where}/{name}: its digest is not its name", hint=_AGAIN)


def _by_tuf(check: _Check, statement: Channel, known: dict[str, bytes]) -> None:
    """What TUF's metadata states is what was signed by SSH."""
    path = f"channels/{statement.channel}.json"
    found = _read_by_tuf(check, path, *known)
    if check.decode(found[path], Channel, path) != statement:
        raise Tampered(f"{check.origin.where}/{path}: TUF's metadata states another one", hint=_AGAIN)
    for name, data in known.items():
        if found[name] != data:
            raise Tampered(f"{check.origin.where}/{name}: TUF's metadata states another one", hint=_AGAIN)
    check.note("The Update Framework", f"{path} and {len(known)} more, from {check.trust.tuf_root}")


def _read_by_tuf(check: _Check, *names: str) -> dict[str, bytes]:
    extras.require("release", "verifying by The Update Framework")
    from . import tuf_client

    assert check.trust.tuf_root is not None
    client = check.run.workspace / "tuf-clients" / records.sha256_bytes(check.origin.where.encode())[:16]
    return tuf_client.TufClient(check.origin, check.trust.tuf_root, client).read(*names)
