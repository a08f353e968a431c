"""Upstream's cache types in NumPy, from the descriptions of their formats, for comparison with the turbo types.

q4_0 and q8_0 are bit-identical to ggml's reference quantizers. For iq4_nl the format leaves the scale to the encoder.
 This one searches the scale with the least squared error, which is better than llama.cpp's single guess for
a cache.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...build.quantizers import Floats
from .codec import Codec

BLOCK = 32

IQ4_NL_LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32)
_IQ4_NL_BOUNDARIES = (IQ4_NL_LEVELS[1:] + IQ4_NL_LEVELS[:-1]) / 2
# The value of largest magnitude is mapped to these, near both ends of the uneven levels.
_IQ4_NL_EXTREMES = (*range(-148, -87, 6), *range(90, 133, 6))


def q4_0(values: Floats) -> Floats:
    """Blocks of 32: an FP16 scale, the signed extreme value over -8, and 4-bit integers from -8 to 7."""
    blocks = values.reshape(-1, BLOCK)
    scale = _extreme(blocks) / np.float32(-8)
    codes = np.clip(np.trunc(blocks * _inverse(scale) + np.float32(8.5)), 0, 15) - 8
    return _decode(scale, codes)


def q8_0(values: Floats) -> Floats:
    """Blocks of 32: an FP16 scale, the largest magnitude over 127, and 8-bit integers."""
    blocks = values.reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    scaled = blocks * _inverse(scale)
    codes = np.trunc(scaled)
    codes += np.where(np.abs(scaled - codes) >= 0.5, np.sign(scaled), 0)  # half away from zero
    return _decode(scale, codes)


def iq4_nl(values: Floats) -> Floats:
    """Blocks of 32: an FP16 scale, and 4-bit indices into 16 uneven levels; scales searched, then least squares."""
    blocks = values.reshape(-1, BLOCK)
    extreme = _extreme(blocks)
    best_gain, best_scale = np.zeros_like(extreme), np.zeros_like(extreme)
    for level in _IQ4_NL_EXTREMES:
        levels = _nearest(blocks * np.float32(level) * _inverse(extreme))
        product = np.sum(blocks * levels, axis=1, keepdims=True)
        energy = np.sum(levels * levels, axis=1, keepdims=True)
        gain = product * product / energy
        better = gain > best_gain
        best_gain = np.where(better, gain, best_gain)
        best_scale = np.where(better, product / energy, best_scale)
    scale = best_scale.astype(np.float16).astype(np.float32)
    return (scale * _nearest(blocks * _inverse(scale))).reshape(-1)


def _nearest(scaled: Floats) -> Floats:
    return IQ4_NL_LEVELS[np.searchsorted(_IQ4_NL_BOUNDARIES, scaled)]


def _extreme(blocks: Floats) -> Floats:
    """The value of largest magnitude of each block, with its sign, as a column; the first of equals."""
    return np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)


def _inverse(scale: Floats) -> Floats:
    """1 / scale, and 0 where that overflows: such a scale is zero in FP16, so the codes do not matter."""
    usable = np.abs(scale) >= np.finfo(np.float32).tiny
    return np.where(usable, np.float32(1) / np.where(usable, scale, np.float32(1)), np.float32(0))


def _decode(scale: Floats, codes: npt.NDArray[np.float32]) -> Floats:
    return (scale.astype(np.float16).astype(np.float32) * codes).reshape(-1)


REFERENCES = (
    Codec(name="q4_0", block=BLOCK, bytes=18, round_trip=q4_0),
    Codec(name="iq4_nl", block=BLOCK, bytes=18, round_trip=iq4_nl),
    Codec(name="q8_0", block=BLOCK, bytes=34, round_trip=q8_0),
)
