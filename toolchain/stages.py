"""The records that each stage passes to the next.

    sources.prepare  -> Sources       which commits, and how Ollama names its llama.cpp
    series.render    -> Rendered      one unified diff per target, with checksums
    sources.scratch  -> Scratch       work trees with the rendered series committed as one branch
    build.build      -> Release       a directory of binaries, licences and a manifest
    verify.verify    -> Verification  what the built server proved
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
    verification: str = ""
    """digest of the verification.json beside the manifest; only in an installed release"""
    model_option: str = ""
    """option of a model that overrides the service's cache type, in a Modelfile or a request; empty: there is none"""


@record
class CachePart:
    """One line of llama-server's log: which attention layers of a cache have one type."""

    side: str
    """K or V"""
    layers: tuple[int, ...]
    """from 0, over all caches of the model"""
    of: int
    """attention layers of the model"""
    type: str
    mib: float


@record
class CacheProof:
    """One line of llama-server's log: a KV cache's types and size."""

    line: str
    cells: int
    layers: int
    type_k: str
    """several types, joined by +, when rules give some layers another type"""
    type_v: str
    mib: float
    mib_k: float
    mib_v: float
    expected_bytes: int
    """bytes of K and V, computed from the model's geometry and the types' bytes per block"""
    parts: tuple[CachePart, ...] = ()
    """the layers of each type, when there are rules"""


@record
class TypeProof:
    """The result of running one cache type (or K:V pair) on one model."""

    kv_cache_type: str
    option: str = ""
    """option of the model that set the type, against the service's; empty: the service's type"""
    model: str
    head_size: int
    tokens: int
    text: str
    context_shifts: int
    caches: tuple[CacheProof, ...]
    on_gpu: int | None = None
    """bytes of the loaded model on a GPU, as /api/ps states; none where no GPU was required"""
    ok: bool
    reason: str = ""


@record
class Verdict:
    """One item of the verification checklist, numbered from 1, on the built programs of a release."""

    number: int
    name: str
    ok: bool
    evidence: str


@record
class GpuStart:
    """Seconds from the start of a program to its first use of the GPU, when it ran for the first time and again."""

    program: str
    first_s: float
    second_s: float


@record
class GpuComparison:
    """llama-server with all layers on the GPU against the same one without a GPU, with one cache type.

    `cache_on` names the buffers of the cache, `splits` is the number of parts that the scheduler cut the graph into.
    Of `tokens` greedy ones, the first `equal` are the same; at the next one, the CPU's model prefers its own token by
    `margin` nats. `kl` is the mean divergence of the GPU's predictions from the CPU's, and `noise` that of this cache
    type from f16 on the CPU, both in nats.
    """

    kv_cache_type: str
    cache_on: tuple[str, ...]
    offloaded: int
    layers: int
    splits: int
    tokens: int
    equal: int
    margin: float
    kl: float
    noise: float


@record
class GpuProof:
    """What the built programs do on the GPU."""

    starts: tuple[GpuStart, ...]
    comparisons: tuple[GpuComparison, ...]


Answer = Literal["fine", "costly", "collapses", "unknown"]


@record
class LayerLoss:
    """By how many dB the SNR of one layer's attention scores is below that of the cache type.

    Computed from the weights of queries and keys, and from the keys of a text; None: unknown.
    """

    layer: int
    """among attention layers, as in a cache type's rules"""
    weights_db: float | None
    keys_db: float | None = None

    @property
    def worst_db(self) -> float:
        """The larger of the two; 0 when both are unknown."""
        return max((one for one in (self.weights_db, self.keys_db) if one is not None), default=0.0)


@record
class Trial:
    """One cache type on a model."""

    cache: str
    predicted_db: float | None
    """SNR of the attention scores; None when the layers' losses are unknown"""
    kl: float | None = None
    """measured KL divergence from f16, nats per token; None when it was not measured"""
    kl_error: float = 0.0
    answer: Answer
    reason: str = ""


@record
class Compatibility:
    """Whether a model works with the requested cache type. `proposal` is empty when it does, or when no type does."""

    model: str
    asked: str
    answer: Answer
    measured: bool
    proposal: str
    layers: tuple[LayerLoss, ...]
    trials: tuple[Trial, ...]
    text_sha256: str = ""
    """digest of the text that the model read; empty when it read none"""


@record
class Verification:
    """verification.json of a release: what was proven, on which binaries."""

    release: str
    content_sha256: str = ""
    """`content_digest` of the release; the proof is valid for this content only"""
    version: str
    proofs: tuple[TypeProof, ...]
    checklist: tuple[Verdict, ...] = ()
    """empty for a release that adds no types; the last verdict is on the GPU, where one is required"""
    gpu: GpuProof | None = None
    """none where no GPU is required, or where it could not be measured"""
    unknown_type_message: str
    """the API's answer to a type that does not exist"""
    guard: Compatibility | None = None
    """compatibility of `verify.model` with the service's cache type"""
    ok: bool
    seconds: float


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
    """where the service is loaded, as its manager names it: gui/501/label"""
    also: tuple[str, ...] = ()
    """further places where it is loaded; a copy there waits until the one that serves has ended"""
    fallback: str = ""
    """which release kept exiting, so that the active one is its parent; empty after the next install"""
    reason: str = ""
    edits: tuple[Edit, ...] = ()
    """changes by hand of the active release's environment, and of the service's definition"""
    warnings: tuple[DeployWarning, ...] = ()
    """of the installation; empty in the answers of other tasks"""
