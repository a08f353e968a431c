"""What all keys of a head have in common: a vector that need not be stored.

Softmax does not change when the same number is added to all scores of a head, and q·c is one number for all keys. So
a cache may store keys less a constant c of each head: what remains has less energy, and a quantized type errs in
proportion to that. No decoder knows of it.

The constant is fitted behind RoPE, on keys as they are stored. RoPE turns a pair of channels by its position times the
pair's frequency, so what a pair has in common vanishes once the positions in use go round. The mean over the first n
positions is best for a context of n tokens, and worse than none for one many times longer; the mean of these means over
n = 512, 1024, ... up to the length that was read gains at all of these (docs/explanation/key-calibration.md).
"""

from __future__ import annotations

import math

import numpy as np

from ...build.quantizers import Floats
from .queries import AttentionLayer

SHORTEST = 512
"""tokens; the mean over fewer is noise of the text"""


def lengths(tokens: int) -> tuple[int, ...]:
    """`tokens`, and its halves down to `SHORTEST`, in ascending order."""
    found = [tokens]
    while found[0] // 2 >= SHORTEST:
        found.insert(0, found[0] // 2)
    return tuple(found)


def fit(keys: Floats) -> Floats:
    """The offset (KV heads, size) of keys (tokens, KV heads, size) at positions 0, 1, 2 ..., behind RoPE."""
    sums = np.cumsum(keys, axis=0, dtype=np.float64)
    return np.asarray(np.mean([sums[n - 1] / n for n in lengths(len(keys))], axis=0), dtype=np.float32)


def fit_tested(first: Floats, second: Floats) -> tuple[Floats, float]:
    """The offset (KV heads, size) of the keys of two texts, each at positions 0, 1, 2 ..., and its gain in dB.

    What is fitted to one text is tested on the other, head by head and at each of `lengths`. A head whose keys have no
    less energy without it, on average over the lengths, has no offset: it would only harm. The gain is of all heads on
    the text that the offset was not fitted to.
    """
    fits = [fit(first), fit(second)]
    pairs = [(second, fits[0]), (first, fits[1])]
    for head in range(first.shape[1]):
        gains = [np.mean([gain_db(keys[:n, head], offset[head]) for n in lengths(len(keys))]) for keys, offset in pairs]
        if min(gains) <= 0:
            fits[0][head] = fits[1][head] = 0
    gain = sum(gain_db(keys, offset) for keys, offset in pairs) / len(pairs)
    return np.asarray((fits[0] + fits[1]) / 2, dtype=np.float32), gain


def gain_db(keys: Floats, offset: Floats) -> float:
    """By how much less energy the keys have without the offset, in dB: what a quantized type gains."""
    before, rest = (float(np.sum(np.square(values, dtype=np.float64))) for values in (keys, keys - offset))
    return 10 * math.log10(before / rest) if before and rest else 0.0


def why_not(layer: AttentionLayer) -> str:
    """Why a constant of a layer's keys would change its attention; empty if it would not."""
    if layer.sinks:
        return f"layer {layer.layer} has attention sinks, whose scores no offset moves"
    if layer.cap:
        return f"layer {layer.layer} caps its scores, so they are no longer a sum"
    return ""
