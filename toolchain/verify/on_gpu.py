"""The checklist's judgement of a GPU: what it computes itself, and whether llama-server computes there."""

from __future__ import annotations

from ..proofs import GpuComparison
from ..serving.placement import is_host
from . import attention
from .probed import Device

_ON_GPU = ("SET_ROWS", "CPY to it", "CPY from it")
"""besides attention, what a cache needs of a GPU: llama.cpp stores rows, and turns keys in a context shift"""
# Two devices round differently. With an f16 cache, noise of 0.5% in the results of attention moved the predictions by
# 1e-5 nats and no greedy token; those of an H100 were 1.6e-6 from the CPU's. With a quantizer, the smallest difference
# makes it choose other blocks that are as good. Two quantizers whose errors have nothing in common are twice as far
# apart as each is from f16; 0.3 to 0.9 times was measured, and tokens differed that were no near ties.
_MAX_KL, _MAX_MARGIN = 1e-4, 0.05
_MAX_NOISE_RATIO = 2.0


def lacks(device: Device, name: str) -> str:
    """What a cache needs of a GPU and the device does not do itself; empty if nothing."""
    kinds = [kind for kind in device.types if kind.name == name]
    done = {one.op for kind in kinds for one in kind.operations if one.of}
    lacking = [f"{op} of {name} on {device.name}: unsupported" for op in _ON_GPU if op not in done]
    return "; ".join(filter(None, [*lacking, attention.missing(device, name)]))


def computes_there(found: GpuComparison) -> tuple[bool, str]:
    """The cache and all layers are on the GPU, and no layer's operation is left to the CPU, which would cut the graph
    before and after it."""
    what = f"llama-server with {found.kv_cache_type}"
    if not found.cache_on or any(is_host(name) for name in found.cache_on):
        return (
            False,
            f"{what} computes on the CPU: its log places the KV cache in {', '.join(found.cache_on) or 'no buffer'}",
        )
    if not 0 < found.offloaded == found.layers:
        return False, f"{what} computes on the CPU: {found.offloaded} of {found.layers} layers are on the GPU"
    if not 0 < found.splits < found.layers:
        return (
            False,
            f"{what} leaves operations to the CPU: the graph has {found.splits} parts",
        )
    return True, f"{what}: the cache in {', '.join(found.cache_on)}, {found.layers} layers, {found.splits} graph parts"


def agrees_with_cpu(found: GpuComparison) -> tuple[bool, str]:
    """The predictions are as far apart as rounding explains: with an f16 cache almost equal, so that greedy tokens only
    differ at a near tie; else no further than two quantizers of this type."""
    bound = max(_MAX_KL, _MAX_NOISE_RATIO * found.noise)
    exact = found.noise <= _MAX_KL
    holds = found.kl <= bound and not (exact and found.equal < found.tokens and found.margin > _MAX_MARGIN)
    words = f"{found.kv_cache_type} on the GPU against the CPU: {found.equal} of {found.tokens} tokens equal"
    if found.equal < found.tokens:
        words += f", the next one preferred by {found.margin:.2g} nats"
    return holds, f"{words}, KL {found.kl:.2g} nats (at most {bound:.2g})"
