"""A publication with two releases and two channels, what its client trusts, and how its publisher signs.

`World.copy` gives each attack a world of its own. What is signed here is signed with the publisher's key: a statement
that an attacker replays is one that the publisher did sign.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.build.test_release import DRAFT
from toolchain.build import assemble, release_dir
from toolchain.core import records
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.publishing import keyfiles, keys, packing, promotion, publication, published, signature
from toolchain.publishing.channel import stamp
from toolchain.publishing.published import Channel, Publication, PublishedRelease
from toolchain.sources import eras


@dataclass(frozen=True)
class World:
    """`stable` names the release `newer`, whose sequence is higher than that of `older`; `beta` names `newer`, too."""

    publication: Publication
    """the folder that is served"""
    key: Path
    """the publisher's private key"""
    other_key: Path
    """a private key that nobody trusts"""
    signers: Path
    """the allowed_signers file of the client"""
    revoked: Path
    """the client's list of revoked public keys: an empty file"""
    older: str
    newer: str
    tuf_root: Path | None = None
    """the first root of The Update Framework that the client trusts"""

    def copy(self, folder: Path) -> World:
        """The same world in `folder`, to be changed."""
        shutil.copytree(self.publication.folder, folder / "publication", symlinks=True)
        for one in (self.signers, self.revoked, *([self.tuf_root] if self.tuf_root else [])):
            shutil.copy(one, folder)
        return dataclasses.replace(
            self,
            publication=Publication(folder / "publication"),
            signers=folder / self.signers.name,
            revoked=folder / self.revoked.name,
            tuf_root=folder / self.tuf_root.name if self.tuf_root else None,
        )

    @property
    def public_key(self) -> str:
        """Type and base64 of the publisher's key."""
        return " ".join(self.key.with_name(f"{self.key.name}.pub").read_text().split()[:2])

    def statement(self, channel: str = "stable") -> Channel:
        """The channel's statement as it is served."""
        return records.read(self.publication.channel(channel), Channel)

    def release(self, identifier: str) -> PublishedRelease:
        """The release.json that is served."""
        return records.read(self.publication.release_file(identifier), PublishedRelease)

    def state(self, channel: str = "stable", *, key: Path | None = None, namespace: str = "", **changes: Any) -> None:
        """Sign and serve a changed statement."""
        path = self.publication.channel(channel)
        records.write(path, dataclasses.replace(self.statement(channel), **changes))
        signature.sign(path, key or self.key, namespace or published.CHANNEL_NAMESPACE)

    def describe(self, release: PublishedRelease, *, key: Path | None = None, namespace: str = "") -> None:
        """Sign and serve a changed release.json, and have the channels name it."""
        path = self.publication.release_file(release.id)
        records.write(path, release)
        signature.sign(path, key or self.key, namespace or published.RELEASE_NAMESPACE)
        for channel in ("stable", "beta"):
            if self.statement(channel).release == release.id:
                self.state(channel, release_sha256=records.sha256_file(path))

    def archive(self, identifier: str = "") -> Path:
        """The archive of a release, of `newer` by default."""
        release = self.release(identifier or self.newer)
        return self.publication.release(release.id) / release.archive.name

    def provisioner(self) -> Path:
        """The provisioner that `stable` names."""
        return self.publication.provisioner_of(self.statement().tq_sha256)

    def repack(self, change: Callable[[tarfile.TarInfo], Iterable[tuple[tarfile.TarInfo, bytes]]]) -> None:
        """Replace each member of the archive of `newer` by others, and sign what comes out: the packer is hostile.

        `change` gets each member and the end, a member without a name; what it gives for the end is appended.
        """
        release, path = self.release(self.newer), self.archive()
        raw = io.BytesIO()
        with tarfile.open(path) as old, tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as new:
            for member in old.getmembers():
                file = old.extractfile(member) if member.isfile() else None
                content = file.read() if file else b""
                for one, data in change(member):
                    new.addfile(one, io.BytesIO(content if one is member else data))
            for one, data in change(tarfile.TarInfo("")):
                new.addfile(one, io.BytesIO(data))
        tar = raw.getvalue()
        path.write_bytes(gzip.compress(tar, mtime=0))
        archive = dataclasses.replace(
            release.archive,
            size=path.stat().st_size,
            sha256=records.sha256_file(path),
            tar_size=len(tar),
            tar_sha256=hashlib.sha256(tar).hexdigest(),
        )
        self.describe(dataclasses.replace(release, archive=archive))

    def shift(self, days: float) -> None:
        """Issue all statements as if it were `days` from now, for 30 days: what a client with a wrong clock sees."""
        now = datetime.now(UTC) + timedelta(days=days)
        for channel in ("stable", "beta"):
            self.state(channel, issued=stamp(now), expires=stamp(now + timedelta(days=30)))


def damage(path: Path, at: float = 0.5) -> None:
    """Change one byte of a file, at this part of it."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0x01
    path.write_bytes(bytes(data))


def list_key(world: World, options: str) -> None:
    """Have the client trust the publisher's key with these options."""
    world.signers.write_text(f"{published.PRINCIPAL} {options} {world.public_key}\n")


def make(folder: Path, provisioner: bytes = b"#!/bin/sh\necho provisioner\n") -> World:
    """A publication made by the toolkit itself in an empty folder, with small programs that are no programs."""
    publisher = make_publisher(folder)
    older, newer = (stage(publisher, name, sequence) for sequence, name in ((1, "older"), (2, "newer")))
    for identifier in (older, newer):
        publication.publish(publisher, identifier, provisioner)
        promotion.promote(publisher, identifier, name="stable", without_proof="a test")
    promotion.promote(publisher, newer, name="beta", without_proof="a test")
    keyfiles.generate(folder / "other")
    return at(folder)


def at(folder: Path) -> World:
    """The world that `make` made in a folder."""
    publication = Publication(folder / "publication")
    older, newer = (one.id for one in sorted(packing.released(publication), key=lambda one: one.sequence)[:2])
    return World(
        publication=publication,
        key=folder / "keys/signing",
        other_key=folder / "other",
        signers=folder / "keys/allowed_signers",
        revoked=folder / "keys/revoked_keys",
        older=older,
        newer=newer,
        tuf_root=folder / "keys/tuf/root.json",
    )


def make_publisher(folder: Path) -> Run:
    """A publisher with keys in `folder`, an empty publication and an empty workspace."""
    keys.make(Console(json=True), folder / "keys", folder / "offline")
    return publisher_of(folder)


def publisher_of(folder: Path, **settings: Any) -> Run:
    """A run of the publisher whose keys lie in `folder`."""
    named = {
        "folder": "publication",
        "key": "keys/signing",
        "signers": "keys/allowed_signers",
        "revoked": "keys/revoked_keys",
        "tuf_keys": "keys/tuf",
    }
    paths = {f"publish.{key}": str(folder / path) for key, path in named.items()}
    return run_in(folder, **{**paths, **settings})


def run_in(folder: Path, **settings: Any) -> Run:
    """A run with its workspace in `folder`, and no setting from elsewhere."""
    folder.mkdir(exist_ok=True)
    (folder / "turboquant.yaml").touch()
    flags = {"workspace": str(folder / "workspace"), **settings}
    return Run(config=load(file=folder / "turboquant.yaml", environ={}, flags=flags), console=Console(json=True))


def stage(run: Run, content: str, sequence: int) -> str:
    """Pack a release with this content in the workspace; its id."""

    def fill(place: Path) -> None:
        for name in eras.named("pinned").native.programs:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(f"#!/bin/sh\necho {content}\n" * 500)
            (place / name).chmod(0o755)
        (place / "lib/ollama/libggml.so").symlink_to("llama-server")

    folder = release_dir(run.workspace, assemble(run.workspace, DRAFT, fill))
    return packing.pack(run, folder, None, sequence=sequence, unverified=True).release.id
