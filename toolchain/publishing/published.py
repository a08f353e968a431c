"""What a publication consists of: a folder that any web server can serve, or the assets of a forge's releases.

    releases/ID/release.json        PublishedRelease, and release.json.sig
    releases/ID/ID.tar.gz           the release directory, with ID/ as the only top folder
    releases/ID/...                 its documents, as release.json lists them
    channels/NAME.json              Channel, and NAME.json.sig
    statements/N/                   all statements so far; channels is a link to the newest folder
    provisioners/DIGEST.sh          the provisioner that a channel names by its digest, and its .sig
    tq, tq.sig                      the newest provisioner, for people
    allowed_signers                 the public keys, for ssh-keygen; a Mac has its own copy, and never takes this one
    tuf/                            metadata of The Update Framework, for clients with Python

Each `.sig` is an SSH signature (signature.py) in the namespace that fits. All digests are SHA-256 in hex.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from ..core import records
from ..core.records import record

RELEASE_NAMESPACE = "turboquant-release"
CHANNEL_NAMESPACE = "turboquant-channel"
PROVISIONER_NAMESPACE = "turboquant-tq"
STATEMENT_NAMESPACE = "turboquant-statement"
NAMESPACES = (RELEASE_NAMESPACE, CHANNEL_NAMESPACE, PROVISIONER_NAMESPACE, STATEMENT_NAMESPACE)
PRINCIPAL = "publisher"
"""whose keys allowed_signers lists"""

RELEASE_FILE = "release.json"
SIGNATURE_SUFFIX = ".sig"
Sequence = Annotated[int, Meta(ge=1, lt=1 << 53)]
_FILE_NAME, _CHANNEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}", r"[a-z][a-z0-9-]{0,31}"
FileName = Annotated[str, Meta(pattern=rf"^{_FILE_NAME}\Z")]
ChannelName = Annotated[str, Meta(pattern=rf"^{_CHANNEL_NAME}\Z")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Role = Literal["probe", "sbom", "provenance", "verification", "validation", "firstrun", "notes"]


@record
class Document:
    """A file beside release.json."""

    name: FileName
    size: int
    sha256: Digest


@record
class Archive:
    """The packed release directory. The tar's digest depends on the files alone, that of the .tar.gz on zlib, too."""

    name: FileName
    size: int
    sha256: Digest
    tar_size: int
    tar_sha256: Digest


@record
class PublishedRelease:
    """release.json. `sequence` grows with each release of a publication, whatever its version."""

    schema: Literal[1] = 1
    id: FileName
    sequence: Sequence
    version: str
    platform: str
    """as in linux-x86_64 or macos-arm64"""
    min_macos: str = ""
    """oldest macOS that its programs run on, from their Mach-O headers; empty elsewhere"""
    created: str
    """UTC, ISO 8601: when it was built"""
    ollama_commit: str
    llama_cpp_commit: str
    llama_cpp_build: int
    series_sha256: Digest
    signing: Literal["none", "adhoc", "self-signed", "developer-id"]
    """how its Mach-O files are signed"""
    notarized: bool = False
    archive: Archive
    files: dict[str, Digest]
    """as in the release's manifest.json, which is the archive's member ID/manifest.json"""
    manifest_sha256: Digest
    unsigned: dict[str, Digest]
    """of each Mach-O file, without its signature, so that a rebuild can be compared"""
    documents: dict[Role, Document]


@record
class Channel:
    """channels/NAME.json: which release a channel's Macs run.

    `sequence` grows with each statement, also with one that names an older release: that is how a publisher rolls back.
    A client refuses a statement with a lower one than the highest that it has seen.
    """

    schema: Literal[1] = 1
    channel: ChannelName
    sequence: Sequence
    issued: str
    """UTC, as in 2026-11-26T18:00:00Z"""
    expires: str
    """the same; a client refuses the statement from then on"""
    release: FileName
    release_sequence: Sequence
    release_sha256: Digest
    """of its release.json"""
    minimum_sequence: Sequence = 1
    """a client neither installs nor goes back to a release whose own sequence is lower"""
    revoked: tuple[FileName, ...] = ()
    """releases that nobody may install or go back to"""
    tq_sha256: Digest
    """of the provisioner: an older copy fetches this one, and hands over"""
    without_proof: str = ""
    """why the release was promoted without a proof from a Mac; empty where there is one"""


@dataclass(frozen=True)
class Publication:
    """The paths in the folder of a publication."""

    folder: Path

    @property
    def releases(self) -> Path:
        """A folder for each release."""
        return self.folder / "releases"

    def release_files(self) -> list[Path]:
        """All release.json, in order; a release that is being made is none."""
        return sorted(self.releases.glob(f"[A-Za-z0-9]*/{RELEASE_FILE}"))

    def release(self, identifier: str) -> Path:
        """The folder of a release."""
        return self.releases / identifier

    def release_file(self, identifier: str) -> Path:
        """Its release.json."""
        return self.release(identifier) / RELEASE_FILE

    def channel(self, name: str) -> Path:
        """The statement of a channel."""
        return self.folder / "channels" / f"{name}.json"

    @property
    def provisioner(self) -> Path:
        """The shell script for Macs, the newest one."""
        return self.folder / "tq"

    def provisioners(self) -> list[Path]:
        """All that channels name, or named."""
        return sorted((self.folder / "provisioners").glob("*.sh"))

    def provisioner_of(self, digest: str) -> Path:
        """The shell script that a channel names."""
        return self.folder / "provisioners" / f"{digest}.sh"

    @property
    def allowed_signers(self) -> Path:
        """The public keys of the publisher."""
        return self.folder / "allowed_signers"

    @property
    def making(self) -> Path:
        """What is not yet part of the publication."""
        return self.folder / ".making"

    @property
    def tuf(self) -> Path:
        """Metadata and targets of The Update Framework."""
        return self.folder / "tuf"


def is_as_stated(path: Path, stated: Archive | Document) -> bool:
    """Whether a file has the size and the digest that release.json states. Raises `OSError`."""
    return path.stat().st_size == stated.size and records.sha256_file(path) == stated.sha256


def signature_of(path: Path) -> Path:
    """The file with the signature of a file."""
    return path.with_name(path.name + SIGNATURE_SUFFIX)


def is_file_name(text: str) -> bool:
    """Whether a text may be the name of a file of a publication."""
    return bool(re.fullmatch(_FILE_NAME, text))


def is_channel_name(text: str) -> bool:
    """Whether a text may be the name of a channel."""
    return bool(re.fullmatch(_CHANNEL_NAME, text))
