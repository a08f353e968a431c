"""Models with extreme key channels, made out of an ordinary one of the llama architecture:

    python -m bench.extreme MODEL OUT --scale 32 [--pairs 60] [--layers 0-2,5]
    python -m bench.extreme MODEL OUT --offset 80 [--pairs 63] [--layers 0-2,5]

`--scale` multiplies pairs of channels of every key by a power of two and divides the same pairs of the queries by it.
RoPE turns a pair as one, so all scores stay what they were: with an f16 cache the model says the same, but for weights
that leave the range of f16 (their number is printed). `--offset` adds a constant to pairs of channels of every key as a
bias. On the slowest pairs (the last ones) RoPE hardly turns it, so that all keys of a context share it and softmax
ignores it; on faster ones it changes what the model says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

Halves = npt.NDArray[np.float16]


def write(
    source: Path, target: Path, *, scale: float = 1.0, offset: float = 0.0, pairs: Iterable[int], layers: Iterable[int]
) -> int:
    """Write the changed model; returns how many weights do not survive the scaling exactly."""
    reader = gguf.GGUFReader(source)
    arch = str(reader.fields["general.architecture"].contents())
    assert arch == "llama", "channels are paired as (0, 1), (2, 3) ... in the llama architecture"
    writer = gguf.GGUFWriter(target, arch)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kinds = field.types
            writer.add_key_value(name, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None)
    heads = int(reader.fields[f"{arch}.attention.head_count"].contents())
    kv_heads = int(reader.fields[f"{arch}.attention.head_count_kv"].contents())
    chosen, inexact = set(layers), 0
    for tensor in reader.tensors:
        parts = tensor.name.split(".")
        data, changed = np.asarray(tensor.data), parts[0] == "blk" and int(parts[1]) in chosen
        if changed and parts[2] in ("attn_q", "attn_k") and parts[-1] == "weight":
            key = parts[2] == "attn_k"
            count = kv_heads if key else heads
            data, lost = _scaled(data, count, pairs, scale if key else 1 / scale)
            inexact += lost
            if key and offset:
                bias = np.zeros((count, len(data) // count // 2, 2), dtype=np.float32)
                bias[:, list(pairs)] = offset
                writer.add_tensor(tensor.name.replace("weight", "bias"), bias.reshape(-1))
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return inexact


def _scaled(weights: npt.NDArray[np.generic], heads: int, pairs: Iterable[int], factor: float) -> tuple[Halves, int]:
    assert weights.dtype == np.float16, "only f16 weights are scaled exactly"
    shaped = weights.astype(np.float32).reshape(heads, -1, 2, weights.shape[1])
    shaped[:, list(pairs)] *= np.float32(factor)
    halves = shaped.astype(np.float16)
    return halves.reshape(weights.shape), int(np.sum(halves.astype(np.float32) != shaped))


def _numbers(text: str) -> list[int]:
    spans = [part.partition("-") for part in text.split(",")]
    return [number for low, _, high in spans for number in range(int(low), int(high or low) + 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--offset", type=float, default=0.0)
    parser.add_argument("--pairs", type=_numbers, default=[-1])
    parser.add_argument("--layers", type=_numbers, default=range(10**4))
    given = parser.parse_args()
    inexact = write(
        given.model, given.out, scale=given.scale, offset=given.offset, pairs=given.pairs, layers=given.layers
    )
    sys.stdout.write(f"{given.out}: {inexact} weights rounded\n")


if __name__ == "__main__":
    main()
