"""The picture of a model's keys: energy by channel, and where attention feels their error (`bench.keys`)."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.keys_arithmetic import Doubles, Head, by_pair, turned
from toolchain.models.quality.queries import AttentionLayer
from toolchain.models.quality.samples import rotate, rotation_size

_BARS = (
    "as it is",
    "as it is, newest 32 exact",
    "constant off",
    "weighted constant off",
    "constant off, first exact",
)


def draw(heads: Sequence[Head], layers: Sequence[AttentionLayer], folder: Path) -> bytes:
    """A PNG: channels by head, and divergence by layer; `folder` keeps matplotlib's cache."""
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    from matplotlib.figure import Figure  # half a second to import, and a test of the arithmetic needs none

    panels: dict[str, list[Doubles]] = {
        "before RoPE": [], "its constant": [], "behind RoPE": [], "the constant behind": [], "rotated": [],
        "rotated, constant off": [],
    }  # fmt: skip
    of = {layer.layer: layer.k for layer in layers}
    for one in heads:
        keys = of[one.layer][:, one.head]
        own, size = keys.astype(np.float64), rotation_size(keys.shape[1])
        halves, base = one.rope.startswith("halves"), float(one.rope.split()[-1])
        early = turned(own, base, halves)
        mean = np.mean(own**2)
        late = rotate(keys - keys.mean(0), size).astype(np.float64)
        rows = (
            np.repeat(np.mean(np.abs(early) ** 2, axis=0), 2) / 2,
            np.repeat(np.abs(early.mean(0)) ** 2, 2) / 2,
            by_pair(np.mean(own**2, axis=0), halves),
            by_pair(own.mean(0) ** 2, halves),
            np.mean(rotate(keys, size).astype(np.float64) ** 2, axis=0),
            np.mean(late**2, axis=0),
        )
        for panel, row in zip(panels.values(), rows, strict=True):
            panel.append(10 * np.log10(np.maximum(row / mean, 1e-6)))
    figure = Figure(figsize=(11, 7.4), layout="constrained")
    maps, bars = figure.subfigures(2, 1, height_ratios=(3, 2), squeeze=False).flat
    axes = maps.subplots(2, 3, sharex=True, sharey=True).T.flat
    for place, (title, rows_) in zip(axes, panels.items(), strict=True):
        image = place.imshow(
            rows_, aspect="auto", vmin=-20, vmax=15, cmap="inferno", interpolation="nearest",
            extent=(0, len(rows_[0]), max(of) + 1, 0),
        )  # fmt: skip
        place.set_title(title, fontsize=9)
        place.set_yticks(range(0, max(of) + 1, 5))
        place.tick_params(labelsize=7)
    maps.supxlabel("channel, in pairs from fast to slow (rotated: in the transform's order)", fontsize=8)
    maps.supylabel("layer", fontsize=8)
    maps.colorbar(image, ax=maps.axes, label="dB over the head's mean channel")
    plot = bars.subplots()
    numbers = sorted(of)
    for index, variant in enumerate(_BARS):
        felt = [np.mean([one.felt[variant] for one in heads if one.layer == at]) for at in numbers]
        plot.bar(np.array(numbers) + (index - 2) * 0.16, felt, 0.16, label=variant)
    plot.set_xticks(numbers)
    plot.tick_params(labelsize=7)
    plot.set_xlabel("layer", fontsize=8)
    plot.set_ylabel("divergence of attention (nats)", fontsize=8)
    plot.legend(fontsize=8, frameon=False)
    image_file = io.BytesIO()
    figure.savefig(image_file, format="png", dpi=90)
    return image_file.getvalue()
