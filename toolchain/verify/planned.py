"""Compares the caches in llama-server's log with those that the memory planner computes from the model's file."""

from __future__ import annotations

from collections.abc import Sequence

from ..models.memory.kv import CacheSizes
from ..serving.cachelog import MIB, Cache, agrees


def complaint(found: Sequence[Cache], planned: CacheSizes) -> str:
    """How the caches differ from those that the memory planner computes from the model's file; empty if equal."""
    stated = [(cache.proof.cells, cache.proof.layers) for cache in found]
    worked_out = [(cache.cells, cache.layers) for cache in planned.caches]
    if stated != worked_out:
        return f"the planner has caches of (cells, layers) {worked_out}, the log {stated}"
    for cache, size in zip(found, planned.caches, strict=True):
        for side, mib, exact in (("K", cache.proof.mib_k, size.k), ("V", cache.proof.mib_v, size.v)):
            if not agrees(mib, exact):
                return f"the planner gives {side} {exact / MIB:.3f} MiB, the log says {mib:.2f}"
    return ""
