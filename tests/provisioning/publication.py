"""A small publication for tq: releases packed, signed and promoted with the records of `published`, in one folder."""

from __future__ import annotations

import datetime
import functools
import subprocess
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
from toolchain.publishing import published, signature
from toolchain.publishing.published import Archive, Channel, Document, Publication, PublishedRelease
from toolchain.serving.probe_model import write_probe
from toolchain.stages import Release

PROBE = "probe.gguf"
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
        publisher.new_key("publisher")
        publisher.signers.write_text(publisher.line("publisher"))
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

    def new_key(self, name: str) -> Path:
        path = self.folder / "keys" / name
        words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path)
        subprocess.run(words, check=True, capture_output=True)
        return path

    def line(self, name: str, options: str = "") -> str:
        """Of allowed_signers."""
        namespaces = ",".join(published.NAMESPACES)
        key = (self.folder / "keys" / f"{name}.pub").read_text()
        return f'{published.PRINCIPAL} namespaces="{namespaces}"{options} {key}'

    def put_provisioner(self, data: bytes) -> None:
        self.site.folder.mkdir(parents=True, exist_ok=True)
        self.site.provisioner.write_bytes(data)
        signature.sign(self.site.provisioner, self.key, published.PROVISIONER_NAMESPACE)

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
        probe = folder / PROBE
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
            documents={"probe": Document(name=PROBE, size=probe.stat().st_size, sha256=records.sha256_file(probe))},
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
            issued=stamp(now),
            expires=stamp(now + 30 * DAY),
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


def stamp(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def publishable(directory: Path) -> Path:
    """Make the manifest of a release that a test made that of one for this machine, with its modes."""
    release = records.read(directory / built.MANIFEST, Release)
    release = replace(release, platform=platform_name(), executable=modes.executable(directory))
    modes.set_all(directory, release.executable or ())
    records.write(directory / built.MANIFEST, replace(release, id=built.release_id(release)))
    return directory


@functools.cache
def probe_model() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PROBE
        write_probe(path, head_size=128, heads=2, kv_heads=1, layers=8, context=2048, seed=1)
        return path.read_bytes()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = int(member.mtime)
    return member
