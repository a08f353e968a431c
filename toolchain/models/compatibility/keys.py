"""The same loss, from a model's real keys for a text: includes offsets that do not come from a bias.

RoPE turns a constant offset of a pair of channels into a line in their spectrum over positions, at the pair's own
frequency, so content is a channel without its strongest line. It needs no knowledge of a model's pairs of channels, or
of the frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...build.quantizers import Floats
from ..quality.samples import Sample
from .channels import Doubles, Layer, loss

_WINDOW, _SKIRT = 12.0, 5
"""a Kaiser window of this shape spreads a line over this many bins on either side, with -90 dB beyond"""


def content(channels: Floats) -> Doubles:
    """Mean square of each channel without its strongest line; `channels` is (tokens, ...)."""
    tokens = len(channels)
    column = (-1, *[1] * (channels.ndim - 1))
    window = np.kaiser(tokens, _WINDOW)
    power = np.abs(np.fft.rfft(channels * window.reshape(column), axis=0)) ** 2
    power[1:] *= 2
    bins = np.arange(len(power)).reshape(column)
    power *= np.abs(bins - power.argmax(axis=0)) > _SKIRT
    return np.asarray(power.sum(axis=0) / (tokens * np.sum(window**2)))


def losses(dumped: Sequence[Sample], layers: Sequence[Layer]) -> tuple[float | None, ...]:
    """The loss of each attention layer of `layers`, in their order; None if the dump lacks the layer.

    A dump lists layers with full attention before windowed ones. Queries have the weights' mean squares, else equal.
    """
    keys = [sample for sample in dumped if sample.keys]
    order = sorted(range(len(layers)), key=lambda number: layers[number].windowed)
    found: list[float | None] = [None] * len(layers)
    if len(keys) != len(layers):
        return tuple(found)
    for number, sample in zip(order, keys, strict=True):
        queries = layers[number].queries
        values = sample.values.astype(np.float64)
        energy = np.mean(values**2, axis=0)
        if queries is None or queries.shape != energy.shape:
            queries = np.ones_like(energy)
        found[number] = loss(queries, energy, content(sample.values))
    return tuple(found)
