"""Attacks on the metadata of The Update Framework, for clients with Python, in the form of attacks.py."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Timestamp

from toolchain.core import records
from toolchain.publishing import tuf_repository
from toolchain.publishing.tuf_repository import Repository

from .attacks import Attacks
from .server import Behaviour
from .world import World

attack = Attacks()


def _signer(world: World, role: str) -> CryptoSigner:
    return tuf_repository.signer_of(world.key.parent / "tuf" / f"{role}.pem")


def _restate(world: World, *, by: int = 1, days: float = 7, signer: CryptoSigner | None = None) -> Metadata[Timestamp]:
    """Serve a timestamp with another version."""
    repository = Repository(world.publication)
    timestamp = repository.current()[2]
    timestamp.signed.version += by
    timestamp.signed.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    timestamp.signatures.clear()
    timestamp.sign(signer or _signer(world, "timestamp"))
    repository.write_versioned(timestamp)
    return timestamp


@attack("an older timestamp again", "older-sequence", seen_before=True)
def _(world: World) -> None:
    _restate(world, by=-1)


@attack("the timestamp has expired", "channel-expired")
def _(world: World) -> None:
    _restate(world, days=-1)


@attack("the timestamp is signed with an unknown key", "tampered")
def _(world: World) -> None:
    _restate(world, signer=CryptoSigner.generate_ed25519())


@attack("the timestamp is signed with the key of targets", "tampered")
def _(world: World) -> None:
    _restate(world, signer=_signer(world, "targets"))


@attack("a newer timestamp names an older snapshot", "older-sequence", seen_before=True)
def _(world: World) -> None:
    repository = Repository(world.publication)
    timestamp = repository.current()[2]
    timestamp.signed.snapshot_meta.version -= 1
    timestamp.signed.snapshot_meta.hashes = timestamp.signed.snapshot_meta.length = None
    timestamp.signed.version += 1
    timestamp.signatures.clear()
    timestamp.sign(_signer(world, "timestamp"))
    repository.write_versioned(timestamp)


@attack("an older snapshot under the newest name", "tampered")
def _(world: World) -> None:
    metadata = world.publication.tuf / "metadata"
    version = Repository(world.publication).current()[1].signed.version
    shutil.copy(metadata / f"{version - 1}.snapshot.json", metadata / f"{version}.snapshot.json")


@attack("targets of another publication", "tampered")
def _(world: World) -> None:
    repository = Repository(world.publication)
    targets = repository.current()[0]
    targets.signatures.clear()
    targets.sign(CryptoSigner.generate_ed25519())
    repository.write_versioned(targets)


@attack("a root that one of three keys signs", "tampered")
def _(world: World) -> None:
    repository = Repository(world.publication)
    root = repository.root()
    root.signed.version += 1
    root.signatures.clear()
    root.sign(tuf_repository.offline_signers(world.key.parent.parent / "offline")[0])
    repository.write_versioned(root)


@attack("another statement for the channel", "tampered")
def _(world: World) -> None:
    for path in _served(world, "channels", "stable.json"):
        path.write_bytes(path.read_bytes().replace(b'"minimum_sequence": 1', b'"minimum_sequence": 2'))


@attack("the channel's statement, signed by SSH alone", "tampered")
def _(world: World) -> None:
    world.state(sequence=world.statement().sequence + 1)


attack("the timestamp never ends", "tampered")(lambda _: Behaviour(endless="timestamp.json"))
attack("the timestamp comes a byte a second", "network")(lambda _: Behaviour(slow="timestamp.json"))


@attack("the timestamp is gone", "network")
def _(world: World) -> None:
    (world.publication.tuf / "metadata/timestamp.json").unlink()


@attack("a first root with other keys", "tampered")
def _(world: World) -> None:
    folder, offline = (world.publication.folder.parent / name for name in ("other-keys", "other-offline"))
    offline.mkdir()
    assert world.tuf_root
    records.write_bytes(world.tuf_root, tuf_repository.create(folder, offline).read_bytes())


def _served(world: World, *parts: str) -> list[Path]:
    *folders, name = parts
    return list((world.publication.tuf / "targets").joinpath(*folders).glob(f"*.{name}"))


TUF_ATTACKS = tuple(attack.found)
