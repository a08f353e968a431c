"""turbo-dump and `turbo-probe decode` with made-up queries, keys and values; and the cache that llama-server saves.

It models the formats: turbo-dump's records in two batches, two query heads over one of K and V, and a saved slot.
Numbers are drawn by layer and token, and do not depend on the tokens or on the layers before, so that every run stores
the same. A quantized cache is what the reference quantizer restores, and its blocks are halves: real ones have other
sizes. Types are f16, q8_0 and q4_0.

TQ_TEST_FAULT breaks the libraries: "levels" restores every number a fifth too large, "values" stores zeros as V of
layer 2, "attention" adds the values up without weights, "none" computes no attention at all.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from tests.quality import slots
from toolchain.models.quality.references import q4_0, q8_0

Floats = npt.NDArray[np.float32]
DECODE = """
import array, struct, sys
halves = sys.stdin.buffer.read()
sys.stdout.buffer.write(array.array("f", struct.unpack(f"<{len(halves) // 2}e", halves)).tobytes())
"""
"""of Python: `turbo-probe decode`, which starts often, and so without NumPy"""
SIZE, HEADS, BATCH = 64, 2, 100
IDS = {"f16": 1, "q4_0": 2, "q8_0": 8}
FAULT = os.environ.get("TQ_TEST_FAULT", "")


def layers_of(model: Path) -> int:
    return int(gguf.GGUFReader(model).fields["llama.block_count"].contents())


def drawn(layer: int, part: str, tokens: int, heads: int = 1) -> Floats:
    """(tokens, heads, SIZE)"""
    rng = np.random.default_rng([layer, ord(part)])
    return rng.standard_normal((tokens, heads, SIZE), dtype=np.float32)


def restored(values: Floats, kind: str, layer: int, part: str) -> Floats:
    """What a cache gives back."""
    found = {"f16": lambda flat: flat, "q4_0": q4_0, "q8_0": q8_0}[kind](values.reshape(-1)).reshape(values.shape)
    if kind != "f16" and FAULT == "levels":
        found = found * np.float32(1.2)
    if kind != "f16" and FAULT == "values" and (layer, part) == (2, "v"):
        found = np.zeros_like(found)
    return np.asarray(found.astype(np.float16).astype(np.float32))


def saved(model: Path, tokens: int, types: tuple[str, ...]) -> bytes:
    """The slot of a server that read so many tokens."""
    parts = [
        [
            restored(drawn(layer, part, tokens), kind, layer, part).reshape(tokens, -1)
            for layer in range(layers_of(model))
        ]
        for part, kind in zip("kv", types, strict=True)
    ]
    halves = [[one.astype("<f2") for one in part] for part in parts]
    return slots.header(range(tokens)) + slots.cache(halves[0], halves[1], kind=(IDS[types[0]], IDS[types[1]]))


def dump(path: Path, stride: int, words: list[str], tokens: int) -> None:
    def flag(name: str) -> str:
        return words[words.index(name) + 1]

    types = {"k": flag("--cache-type-k"), "v": flag("--cache-type-v")}
    with path.open("wb") as file:

        def write(part: str, layer: int, rows: Floats, **facts: Any) -> None:
            header = {"part": part, "layer": layer, "rows": len(rows), "width": rows.shape[-1], **facts}
            file.write(json.dumps({**header, "bytes": rows.nbytes}).encode() + b"\n" + rows.tobytes())

        for first in range(0, tokens, BATCH):
            last = min(first + BATCH, tokens)
            for layer in range(layers_of(Path(flag("--model")))):
                exact = {part: drawn(layer, part, tokens)[:last] for part in "kv"}
                for part, kind in types.items():
                    write(part, layer, exact[part][first:], first=first, step=1, id=IDS[kind], type=kind)
                asked = [at for at in range(first, last) if at % stride == stride - 1]
                if not asked or FAULT == "none":
                    continue
                cache = {part: restored(exact[part], types[part], layer, part)[:, 0] for part in "kv"}
                q = drawn(layer, "q", tokens, HEADS)[asked]
                facts = {"first": asked[0], "step": stride, "heads": HEADS, "attention": layer}
                more = {"scale": SIZE**-0.5, "mask": 0, "visible": [at + 1 for at in asked]}
                write("q", layer, q, **facts, **more)
                out = np.stack(
                    [attended(q[row], cache["k"][: at + 1], cache["v"][: at + 1]) for row, at in enumerate(asked)]
                )
                write("out", layer, out, **facts)


def attended(q: Floats, k: Floats, v: Floats) -> Floats:
    weights = np.exp(q @ k.T * SIZE**-0.5)
    if FAULT == "attention":
        weights = np.ones_like(weights)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True) @ v, dtype=np.float32)


if __name__ == "__main__":
    dump(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:], len(sys.stdin.buffer.read()) // 4)
