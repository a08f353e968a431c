"""Speed by cache type: `python -m tests.speed LLAMA_BENCH MODEL [--depths 0,4096] [--rounds 2] TYPE...`.

Writes a model with random weights to a temporary folder and runs llama-bench on it, one type after the other and the
rounds in alternating order, so that a busy machine strikes all of them alike. Prints tokens per second, and the ratio
to the first type: medians, and the lowest and highest. It measures; it asserts nothing, and pytest does not collect it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import gguf
import numpy as np

Samples = dict[tuple[str, str, int], list[float]]
"""tokens per second by type, test (prompt or generation) and depth"""


@dataclasses.dataclass(frozen=True)
class Shape:
    """8 layers with 8 heads of K and V; widths in values."""

    head_size: int
    heads: int
    embedding: int
    feed_forward: int


SHAPES = {
    "small-128": Shape(128, 16, 1024, 1024),
    "small-64": Shape(64, 16, 1024, 1024),
    "qwen3-1.7b": Shape(128, 16, 2048, 6144),
    "llama-3.2-1b": Shape(64, 32, 2048, 8192),
}
LAYERS, KV_HEADS, VOCABULARY = 8, 8, 512


def write_model(path: Path, shape: Shape) -> None:
    """A llama of that shape with random q8_0 weights and no tokenizer."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(40960)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("none")

    def matrix(name: str, outputs: int, inputs: int) -> None:
        values = rng.standard_normal((outputs, inputs), dtype=np.float32) / np.float32(np.sqrt(inputs))
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(shape.embedding, np.float32))

    matrix("token_embd", VOCABULARY, shape.embedding)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm")
        matrix(f"{block}.attn_q", shape.heads * shape.head_size, shape.embedding)
        matrix(f"{block}.attn_k", KV_HEADS * shape.head_size, shape.embedding)
        matrix(f"{block}.attn_v", KV_HEADS * shape.head_size, shape.embedding)
        matrix(f"{block}.attn_output", shape.embedding, shape.heads * shape.head_size)
        norm(f"{block}.ffn_norm")
        matrix(f"{block}.ffn_gate", shape.feed_forward, shape.embedding)
        matrix(f"{block}.ffn_up", shape.feed_forward, shape.embedding)
        matrix(f"{block}.ffn_down", shape.embedding, shape.feed_forward)
    norm("output_norm")
    matrix("output", VOCABULARY, shape.embedding)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(bench: Path, model: Path, kv_type: str, depths: str, repetitions: int, samples: Samples) -> None:
    """Add the samples of one run of llama-bench, of 512 tokens of prompt and 32 of generation at every depth."""
    key, _, value = kv_type.partition(":")
    command = [str(bench), "-m", str(model), "-t", "2", "-fa", "1", "-ctk", key, "-ctv", value or key]
    command += ["-p", "512", "-n", "32", "-d", depths, "-r", str(repetitions), "-o", "jsonl"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in done.stdout.splitlines():
        result = json.loads(line)
        test = "prompt" if result["n_prompt"] else "generation"
        samples[kv_type, test, result["n_depth"]] += result["samples_ts"]


def table(samples: Samples, baseline: str) -> str:
    """The samples as a Markdown table."""
    lines = ["| K and V | test | depth | t/s | ratio | lowest to highest |", "|---|---|---|---|---|---|"]
    for (kv_type, test, depth), speeds in sorted(samples.items(), key=lambda item: (item[0][1], item[0][2])):
        base = statistics.median(samples[baseline, test, depth])
        ratios = [speed / base for speed in speeds]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        ratio = statistics.median(ratios)
        lines.append(f"| {kv_type} | {test} | {depth} | {statistics.median(speeds):.1f} | {ratio:.2f} | {spread} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, help="llama-bench of a tree with the series")
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("types", nargs="+", help="cache types, as f16 or q8_0:turbo4; the first is the baseline")
    parser.add_argument("--depths", default="0,4096", help="tokens in the cache, comma-separated")
    parser.add_argument("--rounds", type=int, default=2, help="runs of every type")
    parser.add_argument("--repetitions", type=int, default=3, help="of llama-bench, in each run")
    arguments = parser.parse_args()
    samples: Samples = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.gguf"
        write_model(model, SHAPES[arguments.model])
        for number in range(arguments.rounds):
            for kv_type in arguments.types if number % 2 == 0 else reversed(arguments.types):
                measure(arguments.bench, model, kv_type, arguments.depths, arguments.repetitions, samples)
    sys.stdout.write(f"{table(samples, arguments.types[0])}\n\nload average at the end: {os.getloadavg()[0]:.1f}\n")


if __name__ == "__main__":
    main()
