"""`release.publish`: a staged release, signed, into the folder of the publication.

A release appears there by one rename, and never changes again. What is killed in the middle leaves the publication as
it was, and can be started again.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..core import extras, locks, records, temporary
from ..core.config import PublishConfig
from ..core.console import Console
from ..core.delivery_errors import AlreadyPublished, DriftFound, OlderSequence, SigningFailed, Tampered
from ..core.errors import ConfigError, DiskFull, RecordError, ReleaseInvalid
from ..core.records import record
from ..core.run import Run
from ..provisioning import tq
from . import packing, published, signature, unpacking
from .published import RELEASE_FILE, Archive, Document, Publication, PublishedRelease, signature_of

_LOCK_WAIT_S = 60.0
_AGAIN = "./inv release.pack and release.attest make it anew"


@record
class Published:
    """What `release.publish` did."""

    release: str
    sequence: int
    folder: Path
    """of the release in the publication"""
    new: bool
    """false when it was published before, with this content"""
    key: str
    """fingerprint of the key that signed"""
    provisioner: str
    """digest of the provisioner; empty when there is none"""
    tuf: int
    """version of TUF's timestamp; 0 without publish.tuf_keys"""


class Publisher:
    """A publication whose lock is held, and the keys that sign it."""

    def __init__(self, publication: Publication, config: PublishConfig, console: Console) -> None:
        self.publication = publication
        self.config = config
        self.console = console
        self.revoked = Path(config.revoked).expanduser() if config.revoked else None

    @property
    def key(self) -> Path:
        """The SSH key that signs. Raises `SigningFailed` where there is none."""
        return _named(self.config.key, "publish.key", "the SSH key that signs")

    @property
    def signers(self) -> Path:
        """The allowed_signers file. Raises `SigningFailed` where there is none."""
        return _named(self.config.signers, "publish.signers", "the allowed_signers file")

    def sign(self, path: Path, namespace: str) -> str:
        """Sign a file, and return the fingerprint of the key. Raises what `signature.sign` and `verify` do.

        A key that clients would not accept signs nothing.
        """
        signature.sign(path, self.key, namespace)
        try:
            return signature.verify_file(path, namespace, self.signers, revoked=self.revoked)
        except BaseException:
            signature_of(path).unlink(missing_ok=True)
            raise

    def verify(self, path: Path) -> None:
        """Check the signature of a statement of this publication. Raises as `signature.verify` does."""
        namespace = published.RELEASE_NAMESPACE if path.name == RELEASE_FILE else published.CHANNEL_NAMESPACE
        signature.verify_file(path, namespace, self.signers, revoked=self.revoked)

    def verify_provisioner(self, digest: str) -> None:
        """Check the signature of a provisioner. Raises as `signature.verify` does."""
        path = self.publication.provisioner_of(digest)
        signature.verify_file(path, published.PROVISIONER_NAMESPACE, self.signers, revoked=self.revoked)

    def synchronise(self, *, timestamp_only: bool = False) -> int:
        """Bring TUF's metadata up to date, and return the timestamp's version; 0 where there are no keys for it."""
        if not self.config.tuf_keys:
            return 0
        from . import tuf_repository

        folder = Path(self.config.tuf_keys).expanduser()
        with self.console.step("metadata of The Update Framework"):
            state = tuf_repository.synchronise(self.publication, folder, self.verify, timestamp_only=timestamp_only)
        return state.timestamp


@contextmanager
def opened(run: Run) -> Iterator[Publisher]:
    """The publication, for one publisher at a time. Raises `LockHeld`, `ConfigError`, `DiskFull`.

    What TUF needs is looked for first, with `MissingExtra` and `SigningFailed`: by SSH alone half would be done.
    """
    if run.config.publish.tuf_keys:
        extras.require("release", "metadata of The Update Framework")
        if not (keys := Path(run.config.publish.tuf_keys).expanduser()).is_dir():
            raise SigningFailed(f"publish.tuf_keys: {keys}: no such folder", hint="./inv release.keys makes it")
    publication = packing.publication(run)
    busy = f"{publication.folder}: another publisher is at work"
    publisher = Publisher(publication, run.config.publish, run.console)
    try:
        with locks.held(publication.folder / ".lock", busy, hint="wait until it ends", timeout_s=_LOCK_WAIT_S):
            yield publisher
    except OSError as error:
        if error.errno in unpacking.FULL:
            raise DiskFull(f"{publication.folder}: no space left", hint="free some space, then try again") from error
        raise


def publish(run: Run, identifier: str, provisioner: bytes | None) -> Published:
    """Publish a release that was packed, and the provisioner's text.

    Raises `ReleaseInvalid`, `Tampered`, `OlderSequence`, `AlreadyPublished`, `DriftFound`, `LockHeld`, and what signing
    raises.
    """
    if not published.is_file_name(identifier):
        raise ConfigError(f"--release {identifier!r}: not a release's id", hint="ls WORKSPACE/packed")
    staged = packing.staged(run) / identifier
    draft = staged_release(staged)
    with opened(run) as publisher:
        publication = publisher.publication
        target = publication.release(draft.id)
        new = not target.exists()
        if new:
            _require_growth(publication, draft)
            with run.console.step(f"publish {draft.id}"):
                key = _copy(publisher, staged, draft, target)
        else:
            key = _same(publisher, draft, target)
        digest = add_provisioner(publisher, provisioner) if provisioner is not None else ""
        records.write_bytes(publication.allowed_signers, publisher.signers.read_bytes())
        timestamp = publisher.synchronise()
    return Published(
        release=draft.id, sequence=draft.sequence, folder=target, new=new, key=key, provisioner=digest, tuf=timestamp
    )


def provisioner_text(named: str) -> bytes:
    """The provisioner in the file `named`, or the toolkit's own. Raises `ConfigError`."""
    try:
        return Path(named).expanduser().read_bytes() if named else tq.render()
    except OSError as error:
        raise ConfigError(
            f"--provisioner {named}: {error.strerror}", hint="leave it out for the toolkit's own"
        ) from error


def staged_release(staged: Path) -> PublishedRelease:
    """release.json of a folder in packed/, whose files all have the digests that it states.

    Raises `ReleaseInvalid`, `Tampered`.
    """
    try:
        draft = records.read(staged / RELEASE_FILE, PublishedRelease, follow=False)
    except RecordError as error:
        raise ReleaseInvalid(f"{staged}: not packed: {error.message}", hint=_AGAIN) from error
    names = [one.name for one in files_of(draft)]
    if (
        draft.id != staged.name
        or draft.archive.name != f"{draft.id}.tar.gz"
        or len({*names, RELEASE_FILE}) <= len(names)
    ):
        raise ReleaseInvalid(f"{staged / RELEASE_FILE}: it is of another release, or names a file twice", hint=_AGAIN)
    for one in files_of(draft):
        check_file(staged / one.name, one)
    return draft


def files_of(release: PublishedRelease) -> tuple[Archive | Document, ...]:
    """What lies beside release.json."""
    return (release.archive, *release.documents.values())


def check_file(path: Path, stated: Archive | Document) -> None:
    """Compare a file with what release.json says of it. Raises `Tampered`."""
    if path.is_symlink() or not path.is_file():
        raise Tampered(f"{path}: {'a link' if path.is_symlink() else 'missing'}", hint=_AGAIN)
    if not published.is_as_stated(path, stated):
        raise Tampered(f"{path}: its content is not what {RELEASE_FILE} states", hint=_AGAIN)


def add_provisioner(publisher: Publisher, text: bytes) -> str:
    """Publish the provisioner under its digest, which channels name, and as tq for people. Returns the digest."""
    digest = records.sha256_bytes(text)
    path = publisher.publication.provisioner_of(digest)
    if not (path.is_file() and path.read_bytes() == text and signature_of(path).is_file()):
        with temporary.folder("provisioner", within=publisher.publication.making) as private:
            made = private / "tq"
            made.write_bytes(text)
            publisher.sign(made, published.PROVISIONER_NAMESPACE)
            records.write_bytes(signature_of(path), signature_of(made).read_bytes())
            records.write_bytes(path, text, mode=0o755)
    newest = publisher.publication.provisioner
    if not (newest.is_file() and newest.read_bytes() == text):
        records.write_bytes(newest, text, mode=0o755)
    records.write_bytes(signature_of(newest), signature_of(path).read_bytes())
    return digest


def _require_growth(publication: Publication, draft: PublishedRelease) -> None:
    highest = max(((one.sequence, one.id) for one in packing.released(publication)), default=(0, ""))
    if draft.sequence <= highest[0]:
        raise OlderSequence(
            f"{draft.id}: its sequence {draft.sequence} is not above that of {highest[1]}, which is {highest[0]}",
            hint=f"./inv release.pack --release {draft.id} gives it the next one",
        )


def _copy(publisher: Publisher, staged: Path, draft: PublishedRelease, target: Path) -> str:
    """Copy, check the copies, sign, and rename."""
    with temporary.folder(draft.id, within=publisher.publication.making) as private:
        made = private / draft.id
        made.mkdir(0o755)
        made.chmod(0o755)
        for one in files_of(draft):
            _copy_file(staged / one.name, made / one.name)
            check_file(made / one.name, one)
            if (signed := signature_of(staged / one.name)).is_file() and not signed.is_symlink():
                _copy_file(signed, made / signed.name)
        records.write(made / RELEASE_FILE, draft)
        key = publisher.sign(made / RELEASE_FILE, published.RELEASE_NAMESPACE)
        signature_of(made / RELEASE_FILE).chmod(0o644)
        records.flush_directory(made)
        records.make_folder(target.parent)
        try:
            made.rename(target)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise AlreadyPublished(f"{target}: another publisher was faster", hint="look at it") from error
            raise
        records.flush_directory(target.parent)
    return key


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        os.fchmod(copy.fileno(), 0o644)
        records.flush_to_disk(copy.fileno())


def _same(publisher: Publisher, draft: PublishedRelease, target: Path) -> str:
    """Whether what is published is this release, undamaged; the fingerprint of its key."""
    path = target / RELEASE_FILE
    key = signature.verify_file(
        path, published.RELEASE_NAMESPACE, publisher.signers, revoked=publisher.revoked
    )  # fmt: skip
    if path.read_bytes() != records.to_json(draft).encode():
        before = msgspec.json.decode(path.read_bytes(), type=PublishedRelease)
        differing = [name for name, value in records.to_builtins(before).items()
                     if value != records.to_builtins(draft)[name]]  # fmt: skip
        raise AlreadyPublished(
            f"{draft.id} was published before, with other content: {', '.join(differing)}",
            hint="what is published does not change: attest before you publish; build a release with another id, by "
            "another build.suffix",
        )
    for one in files_of(draft):
        try:
            check_file(target / one.name, one)
        except Tampered as error:
            raise DriftFound(
                f"{error.message}, in the publication",
                hint=f"move {target} away, and publish the release again; then look who wrote to it",
            ) from error
    return key


def _named(value: str, key: str, what: str) -> Path:
    path = Path(value).expanduser().absolute()
    if not value or not path.is_file():
        raise SigningFailed(
            f"{key}: {f'{path}: no such file' if value else f'{what} is not set'}", hint="./inv release.keys makes one"
        )
    return path
