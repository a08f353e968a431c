"""A small signed release in a folder of a publication, for uploads; and whether a forge has it as a whole."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from tests.publishing.forge_server import ForgeServer
from tests.publishing.test_signature import list_signer
from toolchain.core import records
from toolchain.publishing import signature
from toolchain.publishing.keyfiles import generate
from toolchain.publishing.published import (
    RELEASE_NAMESPACE,
    Archive,
    Document,
    Publication,
    PublishedRelease,
    Role,
)

ID = "0.33.0-turbo1-0123456789ab"


def make_publication(folder: Path, identifier: str = ID, *, archive: int = 200_000) -> Publication:
    """A publication with one release, whose archive has so many bytes, and its key in `folder`/key."""
    made = Publication(folder / "publication")
    place = made.release(identifier)
    place.mkdir(parents=True)
    key = folder / "key"
    if not key.exists():
        list_signer(made.allowed_signers, generate(key))
    noise = random.Random(identifier)
    contents = {f"{identifier}.tar.gz": archive, "probe.gguf": 3000, "sbom.cdx.json": 700, "notes.md": 0}
    for name, size in contents.items():
        (place / name).write_bytes(noise.randbytes(size) or b"What is new: a cache type.\n")
    roles: dict[Role, str] = {"probe": "probe.gguf", "sbom": "sbom.cdx.json", "notes": "notes.md"}
    stated = {name: _stated(place / name) for name in contents}
    release = PublishedRelease(
        id=identifier, sequence=7, version="0.33.0-turbo1", platform="linux-x86_64", created="2026-11-26T12:00:00Z",
        ollama_commit="a" * 40, llama_cpp_commit="b" * 40, llama_cpp_build=9000, series_sha256="c" * 64,
        signing="none", files={"bin/ollama": "d" * 64}, manifest_sha256="e" * 64, unsigned={},
        archive=Archive(
            name=f"{identifier}.tar.gz", size=archive, sha256=stated[f"{identifier}.tar.gz"].sha256,
            tar_size=archive, tar_sha256="f" * 64,
        ),
        documents={role: stated[name] for role, name in roles.items()},
    )  # fmt: skip
    records.write(made.release_file(identifier), release)
    signature.sign(made.release_file(identifier), key, RELEASE_NAMESPACE)
    return made


def _stated(path: Path) -> Document:
    return Document(name=path.name, size=path.stat().st_size, sha256=records.sha256_file(path))


def faults_of(forge: ForgeServer, publication: Publication, identifier: str = ID) -> list[str]:
    """What is wrong with what is public at the forge: nothing may be, before all files of the release are there."""
    wanted = {one.name: _digest(one.read_bytes()) for one in publication.release(identifier).iterdir()}
    found = []
    for one in forge.public():
        stored = {asset.name: _digest(asset.data) for asset in one.assets.values() if asset.state == "uploaded"}
        if stored != wanted or len(one.assets) != len(wanted):
            found.append(f"{one.tag_name} is public with {sorted(stored)}")
    if len(forge.public()) > 1:
        found.append("two releases are public")
    if forge.store and forge.store.leaks:
        found.append("the store got the token")
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
