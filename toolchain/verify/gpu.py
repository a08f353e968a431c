"""Evidence that the GPU computes: llama-server with all layers there against the same one without a GPU, and how long
the first start takes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..core.config import Config
from ..core.errors import ToolchainError, VerificationFailed
from ..core.process import capture
from ..core.records import record
from ..models.compatibility.trial import Prediction, divergence, predict
from ..proofs import GpuComparison, GpuProof, GpuStart, TypeProof, Verdict
from ..serving.launcher import require_program
from ..serving.llama_server import LlamaServer, own_environment, serve
from ..serving.placement import Placement, is_host, placement
from ..sources.eras.era import LLAMA_SERVER
from ..stages import CacheType, Release
from . import evidence
from .attention import KEYS

SLOW_START_S = 20.0
"""Ollama's discovery gives up on a GPU after 30 s (bootstrapTimeout in discover/runner.go), on two starts together"""
GPU_VERDICT = 7
"""number of the checklist's verdict on the GPU"""
OFF_GPU = "the server computes on the CPU"
GREEDY = 24
CONTEXT = 256
_STEP = 4
_ALL_LAYERS = "999"
_TIMEOUT_S = 300.0


@record
class Answers:
    """What a server predicts: after each of several prompts, and greedily."""

    predictions: tuple[Prediction, ...]
    greedy: tuple[Prediction, ...]
    placed: Placement


def needed(config: Config, release: Release) -> str:
    """Why a GPU must do all that a cache needs: the release is for macOS, or `verify.gpu` requires it; else empty."""
    if config.verify.gpu == "skip":
        return ""
    if release.platform.startswith("macos"):
        return "a release for macOS needs a Metal device"
    return "verify.gpu requires a GPU" if config.verify.gpu == "required" else ""


def skipped(config: Config, release: Release) -> str:
    """A warning of a release whose GPU was to be examined, and was not; empty for any other."""
    skips = config.verify.gpu == "skip" and release.platform.startswith("macos")
    return f"{release.id}: verify.gpu is skip, so nothing shows that the GPU computes, or what" if skips else ""


def elsewhere(release: Release, verdicts: Sequence[Verdict], proofs: Sequence[TypeProof]) -> str:
    """What else a Mac can take whose GPU fails, to go behind a hint; empty where no GPU was seen to fail."""
    wrong = any(one.number == GPU_VERDICT and not one.ok and not one.unknown for one in verdicts)
    wrong |= any(not one.ok and OFF_GPU in one.reason for one in proofs)
    if not wrong or not release.platform.startswith("macos"):
        return ""
    return (
        "; on a Mac whose GPU fails, mlx_lm.server has a quantized cache (--kv-bits) for models without a sliding "
        "window, one request at a time: docs/explanation/assessment.md, MLX"
    )


def caches(kinds: Sequence[CacheType]) -> tuple[str, ...]:
    """The cache types to compare: f16, each of the series', and a mixed pair."""
    return "f16", *(kind.name for kind in kinds), f"{KEYS}:{kinds[0].name}"


def examine(
    release_dir: Path, model: Path, asked: Sequence[str], *, folder: Path, timeout_s: float
) -> tuple[GpuComparison, ...]:
    """Compare GPU and CPU on `model` with each of the cache types, of which f16 must be the first.

    Raises `ModelLoadFailed`, `ServerFailed`, `ReleaseInvalid`, and `VerificationFailed` naming the cache type.
    """

    def answers(cache: str, words: Sequence[str]) -> Answers:
        try:
            return _answers(release_dir, model, cache, words, folder=folder, timeout_s=timeout_s)
        except ToolchainError as error:
            where = "without a GPU" if "none" in words else "on the GPU"
            raise type(error)(f"{cache} {where}: {error.message}", hint=error.hint) from error

    exact: Answers | None = None
    compared = []
    for cache in asked:
        cpu = answers(cache, ("--device", "none"))
        gpu = answers(cache, ("--n-gpu-layers", _ALL_LAYERS))
        exact = exact or cpu
        equal, margin = _agreement(cpu.greedy, gpu.greedy)
        compared.append(
            GpuComparison(
                kv_cache_type=cache,
                cache_on=gpu.placed.cache_on,
                offloaded=gpu.placed.offloaded,
                layers=gpu.placed.layers,
                splits=gpu.placed.splits,
                tokens=len(cpu.greedy),
                equal=equal,
                margin=margin,
                kl=divergence(cpu.predictions, gpu.predictions).mean,
                noise=divergence(exact.predictions, cpu.predictions).mean,
            )
        )
    return tuple(compared)


def starts(release_dir: Path, name: str) -> tuple[GpuStart, ...]:
    """The first and the second start of llama-server, as Ollama's discovery waits for it, and of a process that stores
    a row of a cache of type `name` on each device. Raises `VerificationFailed`, `ReleaseInvalid`."""
    server = require_program(release_dir / LLAMA_SERVER, "./inv build makes it")

    def listed() -> float:
        begun = time.monotonic()
        capture(
            [server, "--list-devices", "--offline"],
            base=own_environment(),
            timeout=_TIMEOUT_S,
            failure=VerificationFailed,
            what=f"{server} --list-devices",
        )
        return time.monotonic() - begun

    def stored() -> float:
        found = evidence.start(release_dir, name)
        return max((device.ready_s for device in found.devices if not device.cpu), default=found.loaded_s)

    return tuple(
        GpuStart(program=program, first_s=round(measure(), 3), second_s=round(measure(), 3))
        for program, measure in (("llama-server --list-devices", listed), (f"{evidence.PROBE_PATH} start", stored))
    )


def slow(found: GpuProof | None) -> str:
    """A warning of starts that Ollama's discovery may not wait for; empty if there are none."""
    late = [start for start in (found.starts if found else ()) if start.first_s > SLOW_START_S]
    if not late:
        return ""
    each = ", ".join(f"{start.program} {start.first_s:.0f} s, then {start.second_s:.0f} s" for start in late)
    return (
        f"the first use of the GPU took {each}; Ollama gives up on a GPU after 30 s and then computes on the CPU: "
        "start llama-server once after each install, before the service"
    )


def _answers(
    release_dir: Path, model: Path, cache: str, words: Sequence[str], *, folder: Path, timeout_s: float
) -> Answers:
    with (
        tempfile.TemporaryDirectory(prefix="gpu-", dir=folder) as home,
        serve(
            release_dir / LLAMA_SERVER,
            model,
            home=Path(home),
            context=CONTEXT,
            timeout_s=timeout_s,
            cache_type=cache,
            arguments=words,
        ) as server,
    ):
        read = server.tokens(evidence.PROMPT)[: CONTEXT - GREEDY - 1]
        places = range(len(read) // 2, len(read) + 1, _STEP)
        predictions = tuple(predict(server, read[:place]) for place in places)
        greedy = _greedy(server, read[: len(read) // 2])
        return Answers(
            predictions=predictions,
            greedy=greedy,
            placed=placement((Path(home) / "server.log").read_text(encoding="utf-8", errors="replace")),
        )


def _greedy(server: LlamaServer, prompt: Sequence[int]) -> tuple[Prediction, ...]:
    """The predictions at each greedy token, one call each, so that a server's own sampler is not needed."""
    read, found = list(prompt), []
    for _ in range(GREEDY):
        found.append(predict(server, read))
        read.append(_best(found[-1].listed))
    return tuple(found)


def _agreement(cpu: Sequence[Prediction], gpu: Sequence[Prediction]) -> tuple[int, float]:
    """How many tokens are equal, and by how many nats the CPU prefers its own at the first one that is not."""
    for number, (a, b) in enumerate(zip(cpu, gpu, strict=True)):
        own, other = _best(a.listed), _best(b.listed)
        if own != other:
            return number, a.listed[own] - a.listed.get(other, min(a.listed.values()))
    return len(cpu), 0.0


def _best(listed: Mapping[int, float]) -> int:
    ids = list(listed)
    return ids[int(np.argmax([listed[one] for one in ids]))]


def off_gpu(on_gpu: int | None, log: str) -> str:
    """Why the server does not compute on a GPU, where it has to; empty if it does."""
    if on_gpu is None:
        return ""
    cache_on = placement(log).cache_on
    if host := [name for name in cache_on if is_host(name)]:
        return f"{OFF_GPU}: its log places the KV cache in {', '.join(host)}"
    return "" if on_gpu > 0 else f"{OFF_GPU}: /api/ps states size_vram 0"
