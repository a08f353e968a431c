"""A release packed by hand, through the record alone."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

from toolchain.build import MANIFEST, load
from toolchain.core import records
from toolchain.core.run import Run
from toolchain.publishing.materials import packed_folder
from toolchain.publishing.published import RELEASE_FILE, Archive, Document, PublishedRelease


def pack(run: Run, identifier: str, sequence: int = 1) -> Path:
    """WORKSPACE/packed/ID with the archive, a probe and an unsigned release.json."""
    directory = run.workspace / "releases" / identifier
    release = load(directory)
    folder = packed_folder(run, identifier)
    folder.mkdir(parents=True, exist_ok=True)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted([*release.files, MANIFEST]):
            member = archive.gettarinfo(directory / name, f"{identifier}/{name}")
            member.uid = member.gid = member.mtime = 0
            member.uname = member.gname = ""
            with (directory / name).open("rb") as file:
                archive.addfile(member, file if member.isreg() else None)
    packed = gzip.compress(tar.getvalue(), mtime=0, compresslevel=1)
    (folder / f"{identifier}.tar.gz").write_bytes(packed)
    (folder / "probe.gguf").write_bytes(b"GGUF")
    records.write(
        folder / RELEASE_FILE,
        PublishedRelease(
            id=release.id,
            sequence=sequence,
            version=release.version,
            platform=release.platform,
            created=release.created,
            ollama_commit=release.ollama_commit,
            llama_cpp_commit=release.llama_cpp_commit,
            llama_cpp_build=release.llama_cpp_build,
            series_sha256=release.series_sha256,
            signing="none",
            archive=Archive(
                name=f"{identifier}.tar.gz",
                size=len(packed),
                sha256=hashlib.sha256(packed).hexdigest(),
                tar_size=len(tar.getvalue()),
                tar_sha256=hashlib.sha256(tar.getvalue()).hexdigest(),
            ),
            files=release.files,
            manifest_sha256=records.sha256_file(directory / MANIFEST),
            unsigned={},
            documents={"probe": Document(name="probe.gguf", size=4, sha256=hashlib.sha256(b"GGUF").hexdigest())},
        ),
    )
    return folder
