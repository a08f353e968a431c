"""Metadata of The Update Framework beside a publication, for clients with Python.

    tuf/metadata/N.root.json  N.targets.json  N.snapshot.json  timestamp.json
    tuf/targets/channels/DIGEST.NAME.json, tuf/targets/releases/ID/DIGEST.release.json

The last file that is written is timestamp.json, so that a client sees the old set or the new one. Only files whose SSH
signature verifies become targets. Needs the extra `release`: whoever imports this module calls `extras.require` first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias, TypeVar

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Key, Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from ..core import records
from ..core.delivery_errors import CannotVerify, SigningFailed, Tampered
from ..core.records import record
from . import keyfiles
from .published import Publication

S = TypeVar("S", Root, Snapshot, Targets, Timestamp)
Parts: TypeAlias = tuple[Metadata[Targets], Metadata[Snapshot], Metadata[Timestamp]]
DAYS = {"root": 365, "targets": 90, "snapshot": 30, "timestamp": 7}
"""until a role's metadata expires"""
THRESHOLD = 2
"""root keys that sign a new root"""
_READABLE = JSONSerializer(compact=False)


@record
class TufState:
    """Versions of the metadata, and when it expires."""

    root: int
    targets: int
    snapshot: int
    timestamp: int
    expires: dict[str, str]
    files: int
    """how many targets there are"""


def create(folder: Path, offline: Path) -> Path:
    """Make all keys and the first root, root.json in `folder`. Raises `ConfigError` for a file that exists."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = {name: CryptoSigner.generate_ed25519() for name in (*keyfiles.ONLINE_ROLES, *keyfiles.ROOT_KEYS)}
    for name, signer in made.items():
        keyfiles.write_new((offline if name in keyfiles.ROOT_KEYS else folder) / f"{name}.pem", signer.private_bytes)
    root = Root(expires=_from_now("root"), consistent_snapshot=True)
    for name, signer in made.items():
        root.add_key(signer.public_key, "root" if name in keyfiles.ROOT_KEYS else name)
    root.roles["root"].threshold = THRESHOLD
    signed = Metadata(root)
    for name in keyfiles.ROOT_KEYS:
        signed.sign(made[name], append=True)
    keyfiles.write_new(folder / keyfiles.ROOT_FILE, signed.to_bytes(_READABLE), mode=0o644)
    return folder / keyfiles.ROOT_FILE


def synchronise(
    publication: Publication, folder: Path, verify: Callable[[Path], None], *, timestamp_only: bool = False
) -> TufState:
    """Bring the metadata up to date with the publication.

    The timestamp is always new, and so is what has less than half of its time left. `folder` has the keys; `verify`
    raises for a file that must not become a target. With `timestamp_only` the targets stay, and their key is not
    needed. Raises `SigningFailed`, `CannotVerify`, `Tampered`.
    """
    repository = Repository(publication)
    repository.begin(folder)
    root = repository.root()
    parts = repository.current()
    targets, snapshot = parts[0].signed, parts[1].signed
    stale = not timestamp_only and (_update_targets(repository, targets, verify) or _due(targets, "targets"))
    _sign(repository, parts, folder, root, targets=stale, snapshot=stale or _due(snapshot, "snapshot"))
    return state(publication)


def state(publication: Publication) -> TufState:
    """What the metadata states now, unverified. Raises `CannotVerify`."""
    repository = Repository(publication)
    root = repository.root()
    current = repository.current()
    targets, snapshot, timestamp = current[0].signed, current[1].signed, current[2].signed
    parts: dict[str, Signed] = {
        "root": root.signed, "targets": targets, "snapshot": snapshot, "timestamp": timestamp,
    }  # fmt: skip
    return TufState(
        root=root.signed.version,
        targets=targets.version,
        snapshot=snapshot.version,
        timestamp=timestamp.version,
        expires={name: f"{one.expires:%Y-%m-%dT%H:%M:%SZ}" for name, one in parts.items()},
        files=len(targets.targets),
    )


def rotate(
    publication: Publication, offline: Sequence[Signer], folder: Path, new: Mapping[str, Key], replaced: str = ""
) -> TufState:
    """Give roles new keys, in a new root that the `offline` root keys sign, and sign everything anew.

    `new` has a key for each role that gets another; with `root` among them, `replaced` is the id of the root key that
    goes. `folder` has the keys of the other roles that are in use from now on. Raises `SigningFailed` where the root
    keys are too few.
    """
    repository = Repository(publication)
    trusted = repository.root().signed
    root = Metadata(repository.root().signed)
    for role, key in new.items():
        for old in [replaced] if role == "root" else list(root.signed.roles[role].keyids):
            root.signed.revoke_key(old, role)
        root.signed.add_key(key, role)
    root.signed.version += 1
    root.signed.expires = _from_now("root")
    for signer in offline:
        root.sign(signer, append=True)
    for judge in (trusted, root.signed):  # clients ask for both
        try:
            judge.verify_delegate("root", root.signed_bytes, root.signatures)
        except RepositoryError as error:
            raise SigningFailed(
                f"a new root needs {THRESHOLD} root keys: {error}", hint="name the folder with at least two of them"
            ) from error
    _sign(repository, repository.current(), folder, root, targets=True, snapshot=True, new_root=True)
    return state(publication)


def lost_root_key(publication: Publication, offline: Sequence[Signer]) -> str:
    """The id of the root key that is not among these. Raises `SigningFailed` unless exactly one is missing."""
    known = {signer.public_key.keyid for signer in offline}
    missing = [one for one in Repository(publication).root().signed.roles["root"].keyids if one not in known]
    if len(missing) != 1:
        raise SigningFailed(
            f"{len(missing)} of the root keys are missing, and one can be replaced",
            hint="name the folder with the two root keys that stay; move one that you do not trust out of it",
        )
    return missing[0]


class Repository:
    """The files in tuf/ of a publication."""

    def __init__(self, publication: Publication) -> None:
        self.publication = publication
        self.metadata = publication.tuf / "metadata"
        self.targets = publication.tuf / "targets"

    def begin(self, folder: Path) -> None:
        """Start with the first root, where there is none yet. Raises `CannotVerify`."""
        if not self._root_versions():
            try:
                first = (folder / keyfiles.ROOT_FILE).read_bytes()
                version = Metadata[Root].from_bytes(first).signed.version
            except (OSError, DeserializationError) as error:
                raise CannotVerify(
                    f"{folder / keyfiles.ROOT_FILE}: no root of TUF: {error}", hint="./inv release.keys makes one"
                ) from error
            records.write_bytes(self.metadata / f"{version}.root.json", first)

    def root(self) -> Metadata[Root]:
        """The newest root. Raises `CannotVerify`."""
        if not (versions := self._root_versions()):
            raise CannotVerify(f"{self.metadata}: there is no root of TUF", hint="./inv release.publish makes one")
        return self._read(f"{versions[-1]}.root.json", Root)

    def current(self) -> Parts:
        """The set that timestamp.json names; an empty one, of version 0, before the first. Raises `CannotVerify`."""
        if (self.metadata / "timestamp.json").is_file():
            timestamp = self._read("timestamp.json", Timestamp)
            snapshot = self._read(f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)
            targets = self._read(f"{snapshot.signed.meta['targets.json'].version}.targets.json", Targets)
        else:
            timestamp, snapshot, targets = Metadata(Timestamp()), Metadata(Snapshot()), Metadata(Targets())
            for one in (timestamp.signed, snapshot.signed, targets.signed):
                one.version = 0
        return targets, snapshot, timestamp

    def meta(self, signed: Signed) -> MetaFile:
        """Version, size and digest of metadata that was written."""
        data = (self.metadata / f"{signed.version}.{signed.type}.json").read_bytes()
        return MetaFile.from_data(signed.version, data, ["sha256"])

    def write_versioned(self, metadata: Metadata[S]) -> None:
        """Write metadata under its version; timestamp.json has none."""
        name = "timestamp.json" if metadata.signed.type == "timestamp" else (
            f"{metadata.signed.version}.{metadata.signed.type}.json"
        )  # fmt: skip
        records.write_bytes(self.metadata / name, metadata.to_bytes(_READABLE))

    def _root_versions(self) -> list[int]:
        found = (path.name.partition(".")[0] for path in self.metadata.glob("*.root.json"))
        return sorted(int(one) for one in found if one.isdecimal())

    def _read(self, name: str, kind: type[S]) -> Metadata[S]:
        try:
            found = Metadata[S].from_bytes((self.metadata / name).read_bytes())
        except (OSError, DeserializationError) as error:
            raise CannotVerify(f"{self.metadata / name}: {error}", hint="restore tuf/ from a copy") from error
        if not isinstance(found.signed, kind):
            raise Tampered(f"{self.metadata / name}: not metadata of {kind.type}", hint="restore tuf/ from a copy")
        return found


def new_key(path: Path) -> Key:
    """Make a key in a file that must not exist, and return its public half. Raises `ConfigError`."""
    made = CryptoSigner.generate_ed25519()
    keyfiles.write_new(path, made.private_bytes)
    return made.public_key


def signer_of(path: Path) -> CryptoSigner:
    """A private key in a PEM file without a passphrase. Raises `SigningFailed`."""
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), None))
    except (OSError, ValueError, TypeError) as error:
        raise SigningFailed(
            f"{path}: no private key: {error}", hint="publish.tuf_keys names the folder with the keys of TUF"
        ) from error


def _update_targets(repository: Repository, targets: Targets, verify: Callable[[Path], None]) -> bool:
    """Copy the publication's statements to where TUF's clients read them. Says whether one is new."""
    publication = repository.publication
    found = {}
    for path in _statements(publication):
        name = path.relative_to(publication.folder).as_posix()
        data = path.read_bytes()
        target = TargetFile.from_data(name, data, ["sha256"])
        if targets.targets.get(name) != target:
            verify(path)
            parent, _, file = name.rpartition("/")
            records.write_bytes(repository.targets / parent / f"{target.hashes['sha256']}.{file}", data)
        found[name] = target
    changed = targets.targets != found
    targets.targets = found
    return changed


def _statements(publication: Publication) -> Iterable[Path]:
    yield from sorted((publication.folder / "channels").glob("[a-z]*.json"))
    yield from publication.release_files()


def _sign(
    repository: Repository,
    parts: Parts,
    folder: Path,
    root: Metadata[Root],
    *,
    targets: bool,
    snapshot: bool,
    new_root: bool = False,
) -> None:
    """Sign the next versions of what is new, and of the timestamp, which is written last; a new root just before it."""
    listed, named, newest = parts
    if targets:
        _sign_next(repository, listed, folder, root)
        named.signed.meta["targets.json"] = repository.meta(listed.signed)
    if snapshot:
        _sign_next(repository, named, folder, root)
        newest.signed.snapshot_meta = repository.meta(named.signed)
    if new_root:
        repository.write_versioned(root)
    _sign_next(repository, newest, folder, root)


def _sign_next(repository: Repository, metadata: Metadata[S], folder: Path, root: Metadata[Root]) -> None:
    """Sign the next version of a role's metadata with its key, and write it."""
    role = metadata.signed.type
    signer = signer_of(folder / f"{role}.pem")
    if signer.public_key.keyid not in root.signed.roles[role].keyids:
        raise SigningFailed(
            f"{folder / f'{role}.pem'}: not the key of {role} that the root of {repository.metadata} names",
            hint="publish.tuf_keys names the folder with the keys of this publication",
        )
    metadata.signed.version += 1
    metadata.signed.expires = _from_now(role)
    metadata.signatures.clear()
    metadata.sign(signer)
    repository.write_versioned(metadata)


def _due(signed: Signed, role: str) -> bool:
    """Whether less than half of the time is left, or none was ever issued."""
    return signed.version == 0 or signed.expires - datetime.now(UTC) < timedelta(days=DAYS[role]) / 2


def _from_now(role: str) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=DAYS[role])


def offline_signers(folder: Path) -> list[CryptoSigner]:
    """The root keys that a folder has."""
    found = []
    for name in keyfiles.ROOT_KEYS:
        with contextlib.suppress(SigningFailed):
            found.append(signer_of(folder / f"{name}.pem"))
    return found
