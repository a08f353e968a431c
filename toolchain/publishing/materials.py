"""What the documents of a packed release are made of: the records of its build, checked against each other."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from ..build import check, content_digest, find_release, load
from ..core.config import SourcesConfig
from ..core.delivery_errors import DocumentInvalid
from ..core.errors import RecordError, ToolchainError
from ..core.records import read, sha256_bytes, sha256_file
from ..core.run import Run
from ..proofs import Verification
from ..sources import eras
from ..sources.repository import Repository
from ..sources.scratch import compat_patches
from ..stages import Checkout, Release, Rendered, Scratch, Sources
from . import archive, packing
from .published import RELEASE_FILE, PublishedRelease

_AGAIN = "./inv release.pack --release {}"


@dataclass(frozen=True)
class Records:
    """The records of a build, in `folder`. `verification` is none for a release that was not verified."""

    folder: Path
    release: Release
    sources: Sources
    rendered: Rendered
    verification: Verification | None

    @property
    def verification_file(self) -> Path:
        """The file with `verification`, if there is one."""
        return self.folder / "verification.json"


@dataclass(frozen=True)
class Upstream:
    """A source tree of the release as upstream has it."""

    name: str
    url: str
    """its web page"""
    local: bool
    """whether the build read a local copy, so that the URL is the one that the toolkit has by default"""
    describe: str
    commit: str

    @property
    def commit_url(self) -> str:
        """The page of the commit."""
        return f"{self.url}/commit/{self.commit}"

    def file_url(self, path: str) -> str:
        """The page of a file at that commit."""
        return f"{self.url}/blob/{self.commit}/{path}"


@dataclass(frozen=True)
class Materials:
    """A packed release in `folder`, its directory, and its records."""

    folder: Path
    packed: PublishedRelease
    directory: Path
    records: Records

    @property
    def release(self) -> Release:
        """The release's manifest."""
        return self.records.release


def gather(run: Run, named: str) -> Materials:
    """Everything about a packed release, by its id; of the newest one built for an empty name.

    Raises `ReleaseInvalid` for a directory that is not what its manifest says, `RecordError` for a release that is not
    packed or whose records are missing, `DocumentInvalid` for records of another release or content.
    """
    directory = find_release(run, named)
    release = check(directory)
    folder = packing.staged(run) / release.id
    packed = read_packed(folder, release.id)
    records = read_records(run, release.id)
    _compare(folder, packed, release)
    if _identity(records.release) != _identity(release):
        raise _other(records.folder / "release.json", release.id, "./inv build")
    return Materials(folder=folder, packed=packed, directory=directory, records=records)


def identified(run: Run, named: str) -> str:
    """The id of a release: `named` where there are records of it, else that of its directory, else of the newest one.

    Raises `ReleaseInvalid`.
    """
    if named and "/" not in named and (run.records_of(named) / "rendered.json").is_file():
        return named
    return load(find_release(run, named)).id


def read_packed(folder: Path, identifier: str) -> PublishedRelease:
    """The release.json of a packed release. Raises `RecordError`, `DocumentInvalid` for one of another release."""
    file = folder / RELEASE_FILE
    if not file.is_file():
        raise RecordError(f"{file}: {identifier} is not packed yet", hint=_AGAIN.format(identifier))
    packed = read(file, PublishedRelease)
    if packed.id != identifier:
        raise _other(file, identifier, _AGAIN.format(identifier))
    return packed


def read_records(run: Run, identifier: str) -> Records:
    """The records of a release by its id. Raises `RecordError`, and `DocumentInvalid` when they do not fit together."""
    folder = run.records_of(identifier)
    sources, rendered = read(folder / "sources.json", Sources), read(folder / "rendered.json", Rendered)
    manifest = folder / "release.json"
    release = read(manifest, Release) if manifest.is_file() else load(run.workspace / "releases" / identifier)
    if release.id != identifier:
        raise _other(manifest, identifier, "./inv build")
    commits = {"ollama": sources.ollama.commit, "llama.cpp": sources.llama_cpp.commit}
    if rendered.series_sha256 != release.series_sha256 or any(
        target.commit != commits[target.target] for target in rendered.targets
    ):
        raise _other(folder / "rendered.json", identifier, "./inv build")
    for target in rendered.targets:
        if sha256_bytes(target.diff.encode("utf-8", "surrogateescape")) != target.sha256:
            raise DocumentInvalid(
                f"{folder / 'rendered.json'}: the diff of {target.target} does not have the digest beside it",
                hint="./inv build",
            )
    file = folder / "verification.json"
    verification = read(file, Verification) if file.is_file() else None
    if verification and (verification.release, verification.content_sha256) != (identifier, content_digest(release)):
        raise _other(file, identifier, f"./inv verify --release {identifier}")
    return Records(folder=folder, release=release, sources=sources, rendered=rendered, verification=verification)


def upstreams(sources: Sources) -> tuple[Upstream, Upstream]:
    """Ollama and llama.cpp."""
    defaults = SourcesConfig()
    return _upstream(sources.ollama, defaults.ollama), _upstream(sources.llama_cpp, defaults.llama_cpp)


def ollamas_patches(records: Records) -> dict[str, str]:
    """Digest of each of Ollama's own patches to llama.cpp, by its path in Ollama's tree.

    Raises `DocumentInvalid` when neither the source nor the scratch tree has the commit any more.
    """
    folder = eras.of(records.sources).compat
    if not folder:
        return {}
    source = records.sources.ollama
    for git_dir in _repositories(records):
        try:
            with Repository(git_dir) as repository:
                found = compat_patches(repository, source.commit, folder)
        except (ToolchainError, AssertionError):
            continue
        return {path: sha256_bytes(content) for path, content in found.items()}
    raise DocumentInvalid(
        f"{source.git_dir}: Ollama's commit {source.commit} is not there any more, so its patches cannot be named",
        hint="./inv build makes the trees again",
    )


def _repositories(records: Records) -> list[Path]:
    scratch = records.folder / "scratch.json"
    trees = [read(scratch, Scratch).ollama / ".git"] if scratch.is_file() else []
    return [path for path in (records.sources.ollama.git_dir, *trees) if path.is_dir()]


def _upstream(checkout: Checkout, default: str) -> Upstream:
    parts = urlsplit(checkout.origin)
    local = parts.scheme not in ("https", "http") or not parts.hostname
    if local:
        parts = urlsplit(default)
    url = f"https://{parts.hostname}{parts.path}"  # without a name or a password
    return Upstream(
        name=checkout.target,
        url=re.sub(r"(\.git)?/*\Z", "", url),
        local=local,
        describe=checkout.describe,
        commit=checkout.commit,
    )


def _compare(folder: Path, packed: PublishedRelease, release: Release) -> None:
    again = _AGAIN.format(release.id)
    manifest = sha256_bytes(archive.manifest_bytes(replace(release, verification="")))
    fits = packed.files == release.files and packed.manifest_sha256 == manifest
    if not fits or _identity(packed) != _identity(release):
        raise _other(folder / RELEASE_FILE, release.id, again)
    file = folder / packed.archive.name
    if not file.is_file() or sha256_file(file) != packed.archive.sha256:
        raise DocumentInvalid(f"{file}: not the archive that {RELEASE_FILE} names", hint=again)


def _identity(release: Release | PublishedRelease) -> tuple[object, ...]:
    commits = (release.ollama_commit, release.llama_cpp_commit, release.llama_cpp_build, release.series_sha256)
    return (release.id, release.version, release.platform, *commits, release.files)


def _other(file: Path, identifier: str, hint: str) -> DocumentInvalid:
    return DocumentInvalid(f"{file}: belongs to another release than {identifier}, or to other content", hint=hint)
