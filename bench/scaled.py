"""A model with the pairs of its keys' channels scaled as `bench.keys` finds best, and the queries' by the inverse:

    python -m bench.scaled MODEL OUT --release RELEASE [--text TEXT] [--tokens 2048]

MODEL has F16 or F32 weights. RoPE turns a pair as one, so scores stay what they are, but for rounding of F16. The
scales suit keys whose constant is left out. They go into the norms of keys and queries where there are any, else into
the rows of their matrices. docs/results/keys.md has what it gains.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from bench.keys import dumped
from bench.keys_arithmetic import Doubles, felt_by_cell, rope, scales, statistics
from toolchain.models.quality.queries import AttentionLayer
from toolchain.models.quality.samples import read_text


def fitted(layer: AttentionLayer, base: float) -> Doubles:
    """The scales (KV heads, size) of a layer, with a geometric mean of 1."""
    felt, (_, halves) = felt_by_cell(layer), rope(layer.k.astype(np.float64), sorted({base, 1e4}))
    found = np.stack([scales(*statistics(layer, felt, head), halves) for head in range(layer.k.shape[1])])
    return np.asarray(found / np.exp(np.log(found).mean(1, keepdims=True)))


def write(source: Path, target: Path, by: Mapping[int, Doubles]) -> None:
    """Write the model with each layer's keys scaled `by` (KV heads, size), as RoPE sees them."""
    reader = gguf.GGUFReader(source)
    arch = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, arch)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kinds = field.types
            writer.add_key_value(name, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None)
    names = {tensor.name for tensor in reader.tensors}
    for tensor in reader.tensors:
        parts, data = tensor.name.split("."), np.asarray(tensor.data)
        if parts[0] == "blk" and int(parts[1]) in by and parts[2][:6] in ("attn_q", "attn_k"):
            scale = by[int(parts[1])]
            normed = f"blk.{parts[1]}.attn_k_norm.weight" in names
            assert len(scale) == 1 or not normed, "heads share a norm, but not their scales"
            if parts[2].endswith("_norm") == normed:
                assert data.dtype in (np.float16, np.float32), "weights have to be F16 or F32"
                rows = np.repeat(scale, len(data) // scale.size, axis=0).reshape(-1, *[1] * (data.ndim - 1))
                data = (data * rows if parts[2].startswith("attn_k") else data / rows).astype(data.dtype)
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--text", default="", help="a file; by default the toolkit's own text")
    parser.add_argument("--tokens", type=int, default=2048)
    given = parser.parse_args()
    fields = gguf.GGUFReader(given.model).fields
    base = float(fields[f"{fields['general.architecture'].contents()}.rope.freq_base"].contents())
    layers, _ = dumped(given.release, given.model, read_text(given.text), given.tokens)
    by = {layer.layer: fitted(layer, base) for layer in layers}
    write(given.model, given.out, by)
    for number, scale in by.items():
        sys.stdout.write(f"layer {number}: {scale.min():.2f} to {scale.max():.2f}\n")


if __name__ == "__main__":
    main()
