"""The records that each stage passes to the next.

    sources.prepare  -> Sources       which commits, and how Ollama names its llama.cpp
    series.render    -> Rendered      one unified diff per target, with checksums
    sources.scratch  -> Scratch       work trees with the rendered series committed as one branch
    build.build      -> Release       a directory of binaries, licences and a manifest
    verify.verify    -> Verification  what the built server proved (in `proofs`)
    deploy.install   -> Deployment    what is active now, and what was before

All paths are absolute, all digests are SHA-256 in hex, all commits are full 40-digit ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from .core.cachetypes.table import CacheType as CacheType
from .core.records import record

Target = Literal["ollama", "llama.cpp"]


@record
class Checkout:
    """A commit in a git repository that the toolkit reads and never changes."""

    target: Target
    origin: str
    """the configured URL or path"""
    git_dir: Path
    commit: str
    describe: str
    """Ollama: newest tag before the commit and the distance, or the short commit id; llama.cpp: b10488, or
    v0.3.0 (b10700) where a version is pinned"""
    dirty: tuple[str, ...] = ()
    """uncommitted paths of the operator's work tree; they are not part of the run"""


@record
class Pin:
    """The llama.cpp that an Ollama tree names, and the commit that is used for it."""

    name: str
    """as Ollama writes it: a build such as b10488, a version such as v0.3.0, or a commit"""
    commit: str
    build: int
    """build number of `commit`: the length of its history"""
    exact: bool
    """false when the mirror lacks the pin and the nearest earlier build is used instead"""


@record
class Sources:
    """Both sources of a run."""

    ollama: Checkout
    llama_cpp: Checkout
    era: str
    """name of the era of Ollama's tree, see `sources.eras`"""
    pin: Pin


@record
class EditResult:
    """The outcome of one edit on one pristine tree."""

    name: str
    """file of the series and name of the edit, as in types/enum"""
    target: Target
    file: str
    status: Literal["applies", "upstreamed", "moved", "broken", "skipped"]
    line: int = 0
    """line of the pristine file where the edit goes, from 1"""
    reason: str = ""
    candidates: tuple[str, ...] = ()
    culprit: str = ""
    """the upstream commit that broke the edit, if it was found"""


@record
class FileChecksum:
    """One file of a target before and after the series; the pristine digest is empty for an added file."""

    path: str
    pristine: str
    rendered: str
    inserted: int
    deleted: int


@record
class RenderedTarget:
    """The series rendered for one target."""

    target: Target
    commit: str
    diff: str
    """unified diff with full blob ids, against `commit`"""
    sha256: str
    files: tuple[FileChecksum, ...]


@record
class Rendered:
    """The series rendered for both targets, with the outcome of each edit and the facts that were read."""

    series_sha256: str
    """digest of the seal, and so of every file of the series"""
    targets: tuple[RenderedTarget, ...]
    edits: tuple[EditResult, ...]
    facts: dict[str, str]
    cache_types: tuple[CacheType, ...]
    model_option: str = ""
    """as in `Release`"""


@record
class Scratch:
    """Work trees, each with the series as one commit on `branch`."""

    root: Path
    ollama: Path
    llama_cpp: Path
    branch: str
    ollama_commit: str
    llama_cpp_commit: str


@record
class Release:
    """manifest.json of a release directory.

    The directory holds bin/ollama, lib/ollama/ (llama-server and its libraries), licenses/ and this manifest;
    `files` maps the path of every file but the manifest, relative to the directory, to its digest.
    """

    id: str
    version: str
    """the version that /api/version reports"""
    created: str
    """UTC, ISO 8601"""
    platform: str
    """as in linux-x86_64 or macos-arm64"""
    ollama_commit: str
    llama_cpp_commit: str
    llama_cpp_build: int
    series_sha256: str
    cache_types: tuple[CacheType, ...]
    """cache types that the series adds"""
    tools: dict[str, str]
    flags: dict[str, str]
    files: dict[str, str]
    executable: tuple[str, ...] | None = None
    """the files with mode 0755; the others have 0644. None in a manifest of an earlier version"""
    unsigned: dict[str, str] | None = None
    """of each Mach-O file, the digest without its signature, which tells a file that was signed after the build. None
    in a manifest of an earlier version"""
    verification: str = ""
    """digest of the verification.json beside the manifest; only in an installed release"""
    model_option: str = ""
    """option of a model that overrides the service's cache type, in a Modelfile or a request; empty: there is none"""


@record
class DeployWarning:
    """What an installation went on with, although it is probably not what was meant."""

    about: str
    """the models, the variable or the file"""
    message: str
    remedy: str
    """what to set, or to do"""


@record
class Edit:
    """A change by hand of a file that was installed. Secrets are shown by the first digits of their digest."""

    file: Path
    name: str
    """of the variable, or of the entry of the service's definition; empty: the whole file"""
    change: Literal["added", "changed", "removed"]
    before: str
    after: str


@record
class Deployment:
    """State of an installation."""

    prefix: Path
    active: str
    """release id, empty when nothing is installed"""
    parent: str
    """the release that was active before, to which a rollback returns"""
    version: str
    pid: int
    healthy: bool
    releases: tuple[str, ...]
    verified: bool = False
    """whether the active release was installed with a verification and is unchanged since"""
    service: str = ""
    """where the service is loaded, as its manager names it: gui/501/label, user/1000/label.service"""
    also: tuple[str, ...] = ()
    """further places where it is loaded; a copy there waits until the one that serves has ended"""
    fallback: str = ""
    """which release kept exiting, so that the active one is its parent; empty after the next install"""
    reason: str = ""
    edits: tuple[Edit, ...] = ()
    """changes by hand of the active release's environment, and of the service's definition"""
    warnings: tuple[DeployWarning, ...] = ()
    """of the installation; empty in the answers of other tasks"""
