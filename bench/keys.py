"""What keys of real models are made of, and which of a type's errors their attention feels:

    python -m bench.keys MODEL... --release RELEASE --text TEXT --out FOLDER [--type turbo4] [--tokens 2048]

The first two stretches of the text are read, each from position 0 on; constants are fitted to the keys of the second
one and everything is measured on the first. Writes keys.json and a picture for each model, and prints a table.
docs/results/keys.md explains the figures. It measures; pytest tests its arithmetic on keys with known answers.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.keys_arithmetic import ERRORS, FEW, Head, examine
from bench.keys_picture import draw
from toolchain.build.release import llama_server
from toolchain.core import config as configuration
from toolchain.core import temporary
from toolchain.core.records import write, write_bytes
from toolchain.models.memory import gguf
from toolchain.models.quality import kernels, queries
from toolchain.models.quality.queries import AttentionLayer
from toolchain.models.quality.references import REFERENCES
from toolchain.models.quality.samples import read_text
from toolchain.series import manifest
from toolchain.serving.llama_server import serve

STRIDE = 16
"""every so many tokens' queries are looked at"""


def dumped(release: Path, model: Path, text: str, tokens: int) -> tuple[tuple[AttentionLayer, ...], ...]:
    """The layers after each of the first two stretches of a text, from an f16 cache."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("LLAMA_ARG_")}
    with (
        temporary.folder("keys") as home,
        serve(
            llama_server(release),
            model,
            home=home,
            context=512,
            timeout_s=600,
            cache_type="f16",
            environment=environment,
        ) as server,
    ):
        words = server.tokens(text)
    assert len(words) >= 2 * tokens, f"the text has {len(words)} tokens, {2 * tokens} are needed"
    return tuple(
        queries.dump(
            release, model, words[start : start + tokens], cache="f16", context=tokens + STRIDE, stride=STRIDE,
            environment=environment, timeout_s=1800,
        )
        for start in (0, tokens)
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--text", default="", help="a file; by default the toolkit's own text")
    parser.add_argument("--type", default="turbo4")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with temporary.folder("kernels") as workspace:
        codecs = (*kernels.load(manifest.load(), configuration.load(environ={}), workspace), *REFERENCES)
    codec = next(one for one in codecs if one.name == given.type)
    heads: dict[str, list[Head]] = {}
    for model in given.models:
        metadata = gguf.load(str(model)).metadata
        stated = metadata.get(f"{metadata['general.architecture']}.rope.freq_base", 1e4)
        assert isinstance(stated, float)
        layers, others = dumped(given.release, model, read_text(given.text), given.tokens)
        heads[model.stem] = [
            head
            for layer, other in zip(layers, others, strict=True)
            for head in examine(layer, other, codec.restore, sorted({stated, 1e4}))
        ]
        write(given.out / "keys.json", heads)
        write_bytes(given.out / f"keys-{model.stem}.png", draw(heads[model.stem], layers, given.out))
        sys.stdout.write(table(model.stem, heads[model.stem]) + "\n")
        sys.stdout.flush()


def table(name: str, heads: Sequence[Head]) -> str:
    """The figures' means over heads, least and most; divergences are sums over layers of the mean of their heads."""
    rows = {
        "mean key before RoPE, share of energy": [one.before for one in heads],
        "mean key behind RoPE": [one.after for one in heads],
        "constant of other words, behind RoPE": [one.other for one in heads],
        f"{FEW} largest channels before RoPE": [one.few[0] for one in heads],
        f"{FEW} largest channels behind RoPE": [one.few[1] for one in heads],
        f"{FEW} largest channels, rotated": [one.few[2] for one in heads],
        "first token, times the mean energy": [one.first_energy for one in heads],
        "first token, attention weight": [one.first_weight for one in heads],
        "mean query, share of energy": [one.queries_mean for one in heads],
        "SNR rotated (dB)": [one.snr[0] for one in heads],
        "SNR not rotated (dB)": [one.snr[1] for one in heads],
        "SNR rotated, constant off (dB)": [one.snr[2] for one in heads],
        "score errors in common, share": [one.common for one in heads],
        "error along the mean query, times even": [one.along_queries for one in heads],
        "ideal code at 4 bits (dB)": [one.ideal_db for one in heads],
        "ideal bits for each channel (dB)": [one.allotted_db for one in heads],
        "pairs scaled (dB)": [one.scaled_db for one in heads],
    }
    lines = [f"| {name} | mean | least | most |", "|---|---|---|---|"]
    lines += [f"| {what} | {np.mean(v):.3f} | {min(v):.3f} | {max(v):.3f} |" for what, v in rows.items()]
    lines += ["", "| divergence of attention, sum over layers | nats | ratio |", "|---|---|---|"]
    numbers = sorted({one.layer for one in heads})
    per_layer = len(heads) / len(numbers)
    felt = {
        name: {at: sum(one.felt[name] for one in heads if one.layer == at) / per_layer for at in numbers}
        for name in heads[0].felt
    }
    sums = {name: sum(found.values()) for name, found in felt.items()}
    whole = sums[ERRORS[0]]
    for name in ERRORS:
        worst = sorted(numbers, key=felt[name].__getitem__, reverse=True)
        for few in (2, 4, len(numbers) // 4):
            spared = ", ".join(map(str, sorted(worst[:few])))
            sums[f"{name}, layers {spared} exact"] = sum(felt[name][at] for at in worst[few:])
    lines += [f"| {name} | {total:.4f} | {total / whole:.3f} |" for name, total in sums.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
