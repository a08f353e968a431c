"""By what each pair of key channels is best multiplied before it is stored, if the queries' pair is divided by it.

Scores stay what they are, and RoPE turns a pair as one, so it turns a scaled pair as well. A quantized type behind the
rotation errs by the same in all channels, in proportion to the energy of the whole key; a score feels the error of a
channel as the query's channel has energy. With keys scaled by s, mean squares k of the keys and q of the queries, the
squared error of scores is in proportion to sum(k s^2) sum(q / s^2): by Cauchy and Schwarz least for s^4 = q / k
(docs/results/keys.md). The factor that all channels of a head share changes nothing, so their geometric mean is 1.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ...build.quantizers import Floats
from .queries import AttentionLayer

LEAST_DB = 0.1
"""heads that gain less than this on the other text are not scaled"""
_LOUDEST = 1e3
"""a pair counts with at least the mean energy of its head over this, so that no scale runs away"""
Doubles: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.intp]


def pairs(size: int, dims: int, halves: bool) -> Indices:
    """The number (size,) of each channel's pair: RoPE turns the first `dims`; the others are alone.

    `halves`: a channel is paired with the one half of `dims` further on instead of its neighbour.
    """
    channels = np.arange(size)
    turned = channels[:dims] % (dims // 2) if halves else channels[:dims] // 2
    return np.concatenate([turned, channels[dims:]])


def energies(layer: AttentionLayer, offset: Floats) -> tuple[Doubles, Doubles]:
    """Mean squares (KV heads, size) of a layer's keys without their offset, and of the queries of each KV head."""
    keys = np.mean(np.square(layer.k - offset, dtype=np.float64), axis=0)
    asked = layer.q.reshape(len(layer.q), layer.k.shape[1], -1, layer.k.shape[2])
    return keys, np.mean(np.square(asked, dtype=np.float64), axis=(0, 2))


def best(keys: Doubles, queries: Doubles, of: Indices) -> Doubles:
    """The best scales (KV heads, size) for mean squares of this shape; `of` is as `pairs` gives it."""
    found = np.empty_like(keys)
    for head, channels in enumerate(zip(keys, queries, strict=True)):
        loudness = [np.bincount(of, one, minlength=len(of))[of] for one in channels]
        k, q = (np.maximum(one, one.mean() / _LOUDEST + 1e-30) for one in loudness)
        logs = (np.log(q) - np.log(k)) / 4
        found[head] = np.exp(logs - logs.mean())
    return found


def gain_db(keys: Doubles, queries: Doubles, scale: Doubles) -> float:
    """By how much less the scores err with scaled keys, in dB; all (..., size), errors of heads are added up."""
    before = np.sum(keys.sum(-1) * queries.sum(-1))
    after = np.sum(np.sum(keys * scale**2, axis=-1) * np.sum(queries / scale**2, axis=-1))
    return float(10 * np.log10(before / after)) if before and after else 0.0


def fit_tested(first: AttentionLayer, second: AttentionLayer, offset: Floats) -> tuple[Floats, float]:
    """The scales (KV heads, size) of a layer after two texts, for keys less `offset`, and their gain in dB.

    What is fitted to one text is tested on the other, head by head: a head that gains less than `LEAST_DB` is not
    scaled. The gain is of all heads on the text that the scales were not fitted to. A layer whose RoPE is not known
    is not scaled.
    """
    ones = np.ones_like(offset)
    if not first.rope_dims:
        return ones, 0.0
    of = pairs(first.k.shape[-1], first.rope_dims, first.rope_halves)
    texts = [energies(layer, offset) for layer in (first, second)]
    fits = [best(*text, of) for text in texts]
    found = best((texts[0][0] + texts[1][0]) / 2, (texts[0][1] + texts[1][1]) / 2, of)
    for head in range(len(offset)):
        gains = [gain_db(k[head], q[head], scale[head]) for (k, q), scale in zip(texts, reversed(fits), strict=True)]
        if min(gains) < LEAST_DB:
            for one in (found, *fits):
                one[head] = 1
    gain = sum(gain_db(*text, scale) for text, scale in zip(texts, reversed(fits), strict=True)) / len(texts)
    return np.asarray(found, dtype=np.float32), gain
