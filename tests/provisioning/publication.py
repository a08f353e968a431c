"""A small publication for tq: releases packed, signed and promoted with the records of `published`, in one folder."""

from __future__ import annotations

import datetime
import functools
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolchain.build import modes
from toolchain.build import release as built
from toolchain.build.pipeline import platform_name
from toolchain.core import records
from toolchain.provisioning import tq
from toolchain.publishing import channel, keyfiles, keys, packing, published, signature
from toolchain.publishing.published import Archive, Channel, Publication, PublishedRelease
from toolchain.serving.probe_model import write_probe
from toolchain.stages import Release

DAY = datetime.timedelta(days=1)


@dataclass
class Publisher:
    """A publication in `folder`/site, and the key that signs it in `folder`/keys."""

    folder: Path
    released: dict[str, PublishedRelease] = field(default_factory=dict)
    statements: int = 0

    @classmethod
    def make(cls, folder: Path) -> Publisher:
        """With keys, allowed_signers, and the provisioner."""
        publisher = cls(folder)
        (folder / "keys").mkdir(parents=True)
        keyfiles.generate(publisher.key)
        publisher.signers.write_text(keys.signer_line(keys.public_half(publisher.key)))
        publisher.put_provisioner(tq.render())
        return publisher

    @property
    def site(self) -> Publication:
        return Publication(self.folder / "site")

    @property
    def key(self) -> Path:
        return self.folder / "keys/publisher"

    @property
    def signers(self) -> Path:
        return self.folder / "keys/allowed_signers"

    def put_provisioner(self, data: bytes) -> None:
        """As the newest, and under the name by which a channel finds it."""
        named = self.site.provisioner_of(records.sha256_bytes(data))
        named.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.site.provisioner, named):
            path.write_bytes(data)
            signature.sign(path, self.key, published.PROVISIONER_NAMESPACE)

    def release(
        self,
        directory: Path,
        sequence: int,
        *,
        members: Callable[[tarfile.TarFile, str], None] | None = None,
        **changes: Any,
    ) -> PublishedRelease:
        """Pack and sign a release directory.

        `members` adds to the archive, `changes` replace fields of release.json.
        """
        manifest = built.load(directory)
        folder = self.site.release(manifest.id)
        folder.mkdir(parents=True)
        archive = folder / f"{manifest.id}.tar.gz"
        with tarfile.open(archive, "w:gz", compresslevel=1) as file:
            file.add(directory, manifest.id, filter=_anonymous)
            if members:
                members(file, manifest.id)
        probe = folder / packing.PROBE
        probe.write_bytes(probe_model())
        card = PublishedRelease(
            id=manifest.id,
            sequence=sequence,
            version=manifest.version,
            platform=manifest.platform,
            created=manifest.created,
            ollama_commit=manifest.ollama_commit,
            llama_cpp_commit=manifest.llama_cpp_commit,
            llama_cpp_build=manifest.llama_cpp_build,
            series_sha256=manifest.series_sha256,
            signing="none",
            archive=Archive(
                name=archive.name,
                size=archive.stat().st_size,
                sha256=records.sha256_file(archive),
                tar_size=sum(path.lstat().st_size for path in directory.rglob("*")),
                tar_sha256="0" * 64,
            ),
            files=manifest.files,
            manifest_sha256=records.sha256_file(directory / built.MANIFEST),
            unsigned={},
            documents={"probe": packing.document(probe)},
        )
        return self.publish(replace(card, **changes))

    def publish(self, card: PublishedRelease) -> PublishedRelease:
        """Write and sign release.json."""
        file = self.site.release_file(card.id)
        records.write(file, card)
        signature.sign(file, self.key, published.RELEASE_NAMESPACE)
        self.released[card.id] = card
        return card

    def promote(self, identifier: str, *, key: Path | None = None, namespace: str = "", **changes: Any) -> Channel:
        """State and sign which release the channel names; `changes` replace fields."""
        self.statements += 1
        now = datetime.datetime.now(datetime.UTC)
        statement = Channel(
            channel="stable",
            sequence=self.statements,
            issued=channel.stamp(now),
            expires=channel.stamp(now + 30 * DAY),
            release=identifier,
            release_sequence=self.released[identifier].sequence,
            release_sha256=records.sha256_file(self.site.release_file(identifier)),
            tq_sha256=records.sha256_file(self.site.provisioner),
        )
        statement = replace(statement, **changes)
        file = self.site.channel(statement.channel)
        records.write(file, statement)
        signature.sign(file, key or self.key, namespace or published.CHANNEL_NAMESPACE)
        return statement


def publishable(directory: Path) -> Path:
    """Make the manifest of a release that a test made that of one for this machine, with its modes."""
    release = records.read(directory / built.MANIFEST, Release)
    files = built.file_digests(directory)
    release = replace(release, platform=platform_name(), executable=modes.executable(directory), files=files)
    modes.set_all(directory, release.executable or ())
    records.write(directory / built.MANIFEST, replace(release, id=built.release_id(release)))
    return directory


@functools.cache
def probe_model() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / packing.PROBE
        write_probe(path, **packing.PROBE_SIZES)
        return path.read_bytes()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = int(member.mtime)
    return member
