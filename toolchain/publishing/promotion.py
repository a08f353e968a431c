"""`release.promote`, `revoke` and `refresh`: new statements of channels.

Every statement carries over what the one before revoked and its minimum. That one is verified first: nobody gets our
signature under what he put into the folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..core import records
from ..core.console import Console
from ..core.delivery_errors import CannotVerify, NotPromotable, OlderSequence, ReleaseRevoked, Tampered
from ..core.errors import ConfigError, RecordError
from ..core.records import record
from ..core.run import Run
from . import channel as channels
from . import published, statements
from .publication import Publisher, check_file, files_of, opened
from .published import Channel, PublishedRelease

STABLE = "stable"
_REASON = '--without-proof "why"'


@record
class Issued:
    """New statements of channels."""

    statements: tuple[Channel, ...]
    before: dict[str, str]
    """which release each channel named before; empty: none"""
    tuf: int
    """version of TUF's timestamp; 0 without publish.tuf_keys"""


def promote(
    run: Run,
    identifier: str,
    *,
    name: str = "",
    minimum_sequence: int = 0,
    without_proof: str = "",
) -> Issued:
    """Have a channel name a published release; an older one than before, too: that is how a publisher rolls back.

    Stable asks for the signed result of a test on a Mac, unless `without_proof` says why there is none.
    `minimum_sequence` raises the channel's floor; 0 keeps it. Raises `NotPromotable`, `ReleaseRevoked`,
    `OlderSequence`, `Tampered`, `LockHeld`, and what signing raises.
    """
    name = channels.checked_name(name or run.config.publish.channel)
    with opened(run) as publisher:
        release = _published(publisher, identifier)
        before = _before(publisher, name)
        floor = max(minimum_sequence, before.minimum_sequence if before else 1)
        revoked = {*(before.revoked if before else ()), *(one for other in _all(publisher) for one in other.revoked)}
        if identifier in revoked:
            raise ReleaseRevoked(f"{identifier} is revoked", hint="publish a new release; what is revoked stays so")
        if release.sequence < floor:
            raise OlderSequence(
                f"{identifier}: its sequence is {release.sequence}, and the minimum of {name} is {floor}",
                hint="publish a new release",
            )
        reason = _unproven(run.console, publisher, release, name, without_proof)
        statement = Channel(
            channel=name,
            sequence=before.sequence if before else 0,
            issued="",
            expires="",
            release=identifier,
            release_sequence=release.sequence,
            release_sha256=records.sha256_file(publisher.publication.release_file(identifier)),
            minimum_sequence=floor,
            revoked=tuple(sorted(revoked)),
            tq_sha256=_provisioner(publisher),
            without_proof=reason,
        )
        return _issue(publisher, [statement], {name: before.release if before else ""})


def revoke(run: Run, identifier: str) -> Issued:
    """Have every channel revoke a release. Raises as `promote` does, and `ConfigError` where there is no channel."""
    with opened(run) as publisher:
        if not published.is_file_name(identifier) or not publisher.publication.release(identifier).is_dir():
            raise ConfigError(f"--release {identifier!r} was not published", hint=_published_ones(publisher))
        before = _some(publisher)
        named = [one.channel for one in before if one.release == identifier]
        if named:
            run.console.warn(
                f"{identifier} is what {', '.join(named)} names: Macs keep what they have until you promote another"
            )
        new = [replace(one, revoked=tuple(sorted({*one.revoked, identifier}))) for one in before]
        return _issue(publisher, new, {one.channel: one.release for one in before})


def refresh(run: Run, *, timestamp_only: bool = False) -> Issued:
    """Issue every channel's statement again, with the next sequence and a new expiry, and renew TUF's metadata.

    With `timestamp_only` the statements stay, and neither the SSH key nor that of TUF's targets is used.
    """
    with opened(run) as publisher:
        if timestamp_only:
            return Issued(statements=(), before={}, tuf=publisher.synchronise(timestamp_only=True))
        before = _some(publisher)
        return _issue(publisher, before, {one.channel: one.release for one in before})


def _issue(publisher: Publisher, statements: Iterable[Channel], before: dict[str, str]) -> Issued:
    days = publisher.config.channel_days
    if not days:
        raise ConfigError("publish.channel_days: 0 days would expire at once", hint="--set publish.channel_days=30")
    made = {one.channel: channels.reissued(publisher, one, days) for one in statements}
    with publisher.console.step(f"channel {', '.join(made)}"):
        channels.issue(publisher, made)
    return Issued(statements=tuple(made.values()), before=before, tuf=publisher.synchronise())


def _before(publisher: Publisher, name: str) -> Channel | None:
    """The channel's statement, or the last one that it had: the sequence never starts again."""
    if publisher.publication.channel(name).is_file():
        return channels.read(publisher, name)
    history = sorted((publisher.publication.folder / "statements").glob(f"[0-9]*/{name}.json"))
    return channels.read(publisher, name, history[-1]) if history else None


def _unproven(console: Console, publisher: Publisher, release: PublishedRelease, name: str, without_proof: str) -> str:
    """Why the release has no proof; empty if it has one, or the channel asks for none. Raises `NotPromotable`."""
    if name != STABLE:
        return ""
    try:
        proof = _proof(publisher, release)
    except NotPromotable as error:
        if not without_proof:
            raise
        console.warn(f"{error.message}; promoted nevertheless: {without_proof}")
        return without_proof
    console.note(f"{release.id}: {proof}")
    return ""


def _proof(publisher: Publisher, release: PublishedRelease) -> str:
    """What proves a release on a Mac. Raises `NotPromotable`, `Tampered`, and what `statements.proof_of` raises."""
    folder = publisher.publication.release(release.id)
    found = statements.proof_of(folder, release, publisher.signers, publisher.revoked)
    hint = f"./inv verify on a Mac, then pack and attest; or promote it to beta, or {_REASON}"
    if failed := [one.role for one in found if one.result == "FAILED"]:
        raise NotPromotable(f"{release.id}: its {failed[0]} failed", hint=hint)
    for one in found:
        if one.passed_on_a_mac:
            files = "these files" if one.same_files else "files from the same sources"
            return f"{one.role} of {files} passed on {one.platform} ({one.system}), signed by {one.key}"
    where = ", ".join(f"{one.role} on {one.platform or 'an unknown machine'}: {one.result}" for one in found)
    raise NotPromotable(f"{release.id}: no signed result of a test on a Mac ({where or 'none at all'})", hint=hint)


def _all(publisher: Publisher) -> list[Channel]:
    return [channels.read(publisher, name) for name in channels.names(publisher.publication)]


def _published_ones(publisher: Publisher) -> str:
    return f"ls {publisher.publication.releases}"


def _some(publisher: Publisher) -> list[Channel]:
    if not (found := _all(publisher)):
        raise ConfigError(
            f"{publisher.publication.folder}: there is no channel", hint="./inv release.promote --release ID"
        )
    return found


def _published(publisher: Publisher, identifier: str) -> PublishedRelease:
    """A release of the publication, verified, with all its files. Raises `CannotVerify`, `Tampered` and others."""
    if not published.is_file_name(identifier):
        raise ConfigError(f"--release {identifier!r}: not a release's id", hint=_published_ones(publisher))
    path = publisher.publication.release_file(identifier)
    if not path.is_file():
        raise CannotVerify(
            f"{path}: {identifier} is not published", hint=f"./inv release.publish --release {identifier}"
        )
    publisher.verify(path)
    try:
        release = records.read(path, PublishedRelease, follow=False)
    except RecordError as error:
        raise Tampered(error.message, hint=error.hint) from error
    if release.id != identifier:
        raise Tampered(f"{path}: it is of {release.id}", hint="restore the publication from a copy")
    for one in files_of(release):
        check_file(path.parent / one.name, one)
    return release


def _provisioner(publisher: Publisher) -> str:
    newest = publisher.publication.provisioner
    if not newest.is_file():
        raise NotPromotable(f"{newest}: there is no provisioner for Macs", hint="./inv release.publish writes it")
    digest = records.sha256_file(newest)
    publisher.verify_provisioner(digest)
    return digest
