"""Speed by cache type: `python -m bench.speed MODEL --bench LLAMA_BENCH=f16,TYPE,... [--bench ...]`.

Writes a model with random weights to a temporary folder and runs llama-bench on it: in every round, each type right
after or before the first type of its llama-bench, the baseline. Such a pair lasts some seconds, so that a busy machine
strikes both alike. Prints the ratios of the pairs: medians, lowest and highest. It measures; it asserts nothing, and
pytest does not collect it. On a machine too busy even for that, take speed.cpp with the file of `--keep`.
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

Speeds = dict[tuple[str, int], float]
"""tokens per second by test (prompt or generation) and depth"""
Ratios = dict[tuple[str, str, str, int], list[float]]
"""speed relative to the baseline, by llama-bench, type, test and depth"""


@dataclasses.dataclass(frozen=True)
class Shape:
    """A layer with 8 heads of K and V; widths in values."""

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
KV_HEADS, VOCABULARY = 8, 512


def write_model(path: Path, shape: Shape, layers: int) -> None:
    """A llama of so many layers of that shape, with random q8_0 weights and no tokenizer."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(40960)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(layers)
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
    for layer in range(layers):
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


@dataclasses.dataclass(frozen=True)
class Bench:
    """A llama-bench, and the types to measure with it; the first is the baseline."""

    name: str
    program: Path
    types: list[str]


def bench(text: str) -> Bench:
    """`[name:]program=type,type,...` of the command line."""
    place, _, types = text.partition("=")
    name, _, program = place.rpartition(":")
    if not types:
        raise argparse.ArgumentTypeError(f"{text}: expected [NAME:]PROGRAM=TYPE,TYPE,...")
    return Bench(name, Path(program), types.split(","))


def measure(program: Path, model: Path, kv_type: str, arguments: argparse.Namespace) -> Speeds:
    """One run of llama-bench, with a prompt and a generation at every depth."""
    key, _, value = kv_type.partition(":")
    command = [str(program), "-m", str(model), "-t", str(arguments.threads), "-fa", "1"]
    command += ["-ctk", key, "-ctv", value or key]
    command += ["-p", str(arguments.prompt), "-n", str(arguments.generated), "-d", arguments.depths]
    command += ["-r", str(arguments.repetitions), "-o", "jsonl"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    results = map(json.loads, done.stdout.splitlines())
    return {("prompt" if r["n_prompt"] else "generation", r["n_depth"]): max(r["samples_ts"]) for r in results}


def compare(arguments: argparse.Namespace, model: Path, number: int, ratios: Ratios) -> None:
    """Add the ratios of one round; every other round runs the types, and the two of a pair, in reverse."""
    pairs = [(bench, kv_type) for bench in arguments.bench for kv_type in bench.types[1:]]
    for bench, kv_type in pairs if number % 2 == 0 else reversed(pairs):
        both = [bench.types[0], kv_type]
        speeds = {each: measure(bench.program, model, each, arguments) for each in both[:: 1 - 2 * (number % 2)]}
        for test, depth in speeds[kv_type]:
            ratio = speeds[kv_type][test, depth] / speeds[bench.types[0]][test, depth]
            ratios[bench.name, kv_type, test, depth].append(ratio)
            sys.stderr.write(f"{bench.name} {kv_type} {test} {depth} {ratio:.3f} load {os.getloadavg()[0]:.1f}\n")


def table(ratios: Ratios) -> str:
    """The ratios as a Markdown table."""
    lines = ["| program | K and V | test | depth | ratio | lowest to highest | pairs |", "|---" * 7 + "|"]
    for (name, kv_type, test, depth), found in sorted(ratios.items(), key=lambda item: (item[0][3], item[0][2])):
        spread = f"{statistics.median(found):.2f} | {min(found):.2f} to {max(found):.2f} | {len(found)}"
        lines.append(f"| {name} | {kv_type} | {test} | {depth} | {spread} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument(
        "--bench",
        type=bench,
        action="append",
        default=[],
        metavar="[NAME:]PROGRAM=TYPE,TYPE,...",
        help="a llama-bench and cache types, as f16 or q8_0:turbo4; the first is its baseline",
    )
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the model there, and leave it")
    parser.add_argument("--layers", type=int, default=2, help="few keep a run short, and the ratio is that of a layer")
    parser.add_argument("--depths", default="0,4096", help="tokens in the cache, comma-separated")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of prompt")
    parser.add_argument("--generated", type=int, default=32, help="tokens of generation")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of every type")
    parser.add_argument("--repetitions", type=int, default=3, help="of llama-bench, in each run; the best one counts")
    arguments = parser.parse_args()
    ratios: Ratios = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.keep or Path(folder) / "model.gguf"
        write_model(model, SHAPES[arguments.model], arguments.layers)
        for number in range(arguments.rounds if arguments.bench else 0):
            compare(arguments, model, number, ratios)
            load = os.getloadavg()[0]
            sys.stdout.write(f"after {number + 1} rounds, load average {load:.1f}:\n\n{table(ratios)}\n\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
