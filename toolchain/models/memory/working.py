"""An estimate of llama-server's memory besides weights and caches.

It reserves one buffer for the largest graph, that of a whole batch. It contains the attention mask, which is
exact (an f16 for each token of the batch and each cell), and the widest layer's live values, which are

    3 x feed-forward + 3 x embedding + Q                     gate, up, and their product; residuals; the query
    the same + experts x embedding                           if that does not fit the space of gate and up
    heads x (head of K + 2 x latent) + embedding             MLA, if that is more
    7.2 x inner                                              Mamba, if that is more

in f32 for each token. The coefficients are what llama.cpp b10470 reserves on the CPU for models of 14 geometries
(docs/results/memory.md has the differences); other backends may lay out a graph differently.
"""

from __future__ import annotations

from .geometry import Geometry
from .kv import CacheSizes, Setting

PROCESS_BYTES = 128 << 20
"""llama-server itself: code, vocabulary, threads; measured: 75 MiB with 262,208 tokens"""
_F16, _F32 = 2, 4


def working_bytes(geometry: Geometry, setting: Setting, caches: CacheSizes) -> int:
    """Bytes of the compute buffer, the logits and the process."""
    mask = sum(_F16 * setting.tokens * cache.cells for cache in caches.caches if cache.name != "indexer")
    widest = _F32 * setting.tokens * _widest(geometry)
    logits = _F32 * geometry.vocabulary * setting.sequences
    return mask + widest + logits + PROCESS_BYTES


def _widest(geometry: Geometry) -> int:
    """Live values of the widest layer for one token."""
    ends = 3 * geometry.feed_forward + 3 * geometry.embedding
    widest_head = max((layer.head_k for layer in geometry.cached), default=0)
    if geometry.mla:
        head = widest_head + 2 * geometry.latent
        return max(ends, geometry.heads * head + geometry.embedding)
    query = geometry.heads * widest_head
    spread = geometry.experts * geometry.embedding
    expert = spread if spread > 2 * geometry.feed_forward else 0
    return max(ends + query + expert, 36 * geometry.inner // 5)
