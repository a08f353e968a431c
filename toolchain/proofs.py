"""What verification and compatibility trials found of a release, as part of the records of `stages`.

Digests are SHA-256 in hex.
"""

from __future__ import annotations

from typing import Literal

from .core.records import record


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
    engine: str = ""
    """what ran the model, where an Ollama has several engines"""
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
    unknown: bool = False
    """whether nothing here could be asked; `evidence` then says why, and `ok` is false"""

    @property
    def word(self) -> str:
        """The verdict in a word."""
        return "ok" if self.ok else "unknown" if self.unknown else "FAILED"


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
    risk: str = ""
    """why models of this kind are known to lose more than most by the type, and what does better"""


@record
class RanOn:
    """The machine on which a release was tested."""

    platform: str
    """as in linux-x86_64 or macos-arm64"""
    system: str
    """as in macOS 15.6 (24G84), arm64"""


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
    ran_on: RanOn | None = None
    """none in a record of an earlier version"""
    ok: bool
    seconds: float
