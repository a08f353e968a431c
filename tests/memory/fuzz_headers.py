"""Damaged and hostile GGUF headers, given to all that reads them.

The suite tries a few hundred. A longer run, by hand:

    python -m tests.memory.fuzz_headers --cases 60000 --first 0

writes its findings (anything but an expected error, a case of more than 1 s, memory beyond 500 MB), each with the
number that makes the case again.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import msgspec

from tests.fuzz.subject import summary
from toolchain.core.cachetypes.grammar import parse
from toolchain.core.cachetypes.table import own, type_table
from toolchain.core.errors import ToolchainError
from toolchain.core.records import to_builtins
from toolchain.models import servable
from toolchain.models.compatibility import channels, stored
from toolchain.models.memory import architectures, geometry, ollama_compat, plan
from toolchain.models.memory import gguf as reading
from toolchain.models.memory.kv import Setting
from toolchain.models.quality import dump
from toolchain.text import as_text

from . import models
from .models import Spec

_TYPES = tuple(map(parse, ("f16", "q8_0", "q8_0:turbo4", "turbo2")))
_TABLE = type_table(own())
_SETTING = Setting(context=1, sequences=256, batch=1 << 16)
_MACHINE = plan.Hardware(ram=36 << 30, gpu=27 << 30)
_SLOW_S = 1.0
_NUMBERS = (0, 1, 2, 3, 7, 31, 32, 64, 80, 96, 255, 256, 512, 513, 1024, 1 << 16, (1 << 20) + 1, 1 << 24, 1 << 27)
_EDGES = (*_NUMBERS, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 61, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_NAMES = sorted(architectures.KNOWN | architectures.UNSERVED.keys() | ollama_compat.RENAMES.keys())
_WHOLE = ("llama", "qwen3", "nemotron_h_omni")
"""architectures of models that are made with their data, which are zeros"""
_ROOM = 200_000
_KEYS = (
    *("attention.sliding_window", "attention.sliding_window_pattern", "attention.key_length", "attention.value_length"),
    *("attention.key_length_swa", "attention.value_length_swa", "attention.key_length_mla", "attention.kv_lora_rank"),
    *("attention.value_length_mla", "attention.head_count", "attention.head_count_kv", "attention.shared_kv_layers"),
    *("attention.recurrent_layers", "attention.indexer.key_length", "attention.indexer.types", "block_count"),
    *("context_length", "embedding_length", "feed_forward_length", "expert_used_count", "expert_feed_forward_length"),
    *("expert_shared_feed_forward_length", "full_attention_interval", "kda.head_dim", "nextn_predict_layers"),
    *("pooling_type", "rope.dimension_count", "shortconv.l_cache", "ssm.conv_kernel", "ssm.group_count", "vocab_size"),
    *("ssm.inner_size", "ssm.state_size", "token_shift_count", "wkv.head_size", "ssm.v_head_reordered"),
)
_FULL_KEYS = ("general.alignment", "general.name", "general.type", "split.count", "split.no", "tokenizer.chat_template")
_TENSORS = (
    *(
        "token_embd.weight",
        "blk.0.attn_q.weight",
        "blk.0.attn_k.weight",
        "blk.0.attn_qkv.weight",
        "blk.0.attn_norm.weight",
    ),
    *("blk.0.attn_sinks", "v.patch.weight", "dense.0.weight", "mtp.layers.511.x", "blk.1.ffn_down_exps.weight"),
    *("output_norm.weight", "blk.0.ffn_gate.weight", "blk.0.ffn_gate_exps.weight", "blk.0.attn_k_norm.weight"),
)


@dataclasses.dataclass
class _Header:
    """A header before it is written: pairs of a key, a type and bytes, and tensors."""

    pairs: list[tuple[str, bytes]]
    tensors: list[tuple[str, tuple[int, ...], int, int]]

    def data(self) -> bytes:
        begin = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.pairs))
        pairs = (_text(key) + value for key, value in self.pairs)
        tensors = (
            _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
            for name, shape, kind, offset in self.tensors
        )
        return b"".join((begin, *pairs, *tensors))


def case(number: int) -> bytes:
    """The file of this number, always the same: half are well formed with odd content, half have odd bytes."""
    dice = random.Random(number)
    specs = _specs()
    name = dice.choice(list(specs))
    if dice.random() < 0.5:
        header = _odd(specs[name], dice).data()
        return header + bytes(_ROOM if name in _WHOLE else dice.choice((0, 0, 31)))
    whole = bytearray(_written(name))
    for _ in range(dice.randint(1, 4)):
        _damage(whole, dice)
    return bytes(whole[: dice.choice((*[len(whole)] * 3, dice.randrange(len(whole) + 1)))])


def read_by_all(path: Path) -> str:
    """Everything that the toolkit does with a header; the name of the planner's error, or nothing."""
    outcome = ""
    for reader in (_planned, _judged, _heads, _served, _weights):
        try:
            reader(path)
        except ToolchainError as error:
            outcome = outcome or (type(error).__name__ if reader is _planned else "")
    return outcome


def _planned(path: Path) -> None:
    header = reading.load(str(path))
    shape = geometry.read(header)
    found = plan.plan(header, shape, _MACHINE, types=_TYPES, table=_TABLE, setting=_SETTING)
    msgspec.json.encode(to_builtins(found))
    as_text(found)


def _judged(path: Path) -> None:
    stored.objection(path, "m", _TYPES[2], own())


def _heads(path: Path) -> None:
    dump.read_heads(path)


def _served(path: Path) -> None:
    servable.find(str(path), path.parent, {})


def _weights(path: Path) -> None:
    for layer in channels.read(path):
        layer.loss()


@cache
def _specs() -> dict[str, Spec]:
    window = {"attention.sliding_window": 128}
    theirs = {name: models.dense(name, further=window) for name in ollama_compat.RENAMES}
    small = {
        name: models.dense(name, layers=1, embedding=64, feed_forward=64, heads=2, kv_heads=1, head_size=32)
        for name in _WHOLE
    }
    return {name: make() for name, make in models.TINY.items()} | theirs | small


@cache
def _written(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return models.write(Path(folder) / "m.gguf", _specs()[name], data=name in _WHOLE).read_bytes()


def _odd(spec: Spec, dice: random.Random) -> _Header:
    architecture = dice.choice((spec.architecture, spec.architecture, dice.choice(_NAMES)))
    metadata: dict[str, Any] = {f"{architecture}.{key}": value for key, value in spec.metadata.items()}
    for _ in range(dice.randint(1, 2)):
        key = dice.choice(list(metadata))
        if dice.random() < 0.2:
            del metadata[key]
        key = dice.choice((key, f"{architecture}.{dice.choice(_KEYS)}", dice.choice(_FULL_KEYS)))
        metadata[key] = _value(dice)
    pairs = [("general.architecture", _packed(architecture))]
    pairs += [(key, _packed(value)) for key, value in metadata.items()]
    tensors, end = [], 0
    for name, shape, kind in spec.tensors[: dice.choice((0, 3, 20))]:
        odd = dice.random() * dice.choice((1, 10))
        name = dice.choice(_TENSORS) if odd < 0.1 else name
        shape = tuple(dice.choice(_EDGES) for _ in range(dice.randint(0, 5))) if 0.1 < odd < 0.15 else shape[::-1]
        number = dice.choice((42, 250, 31, 0, 8, 2)) if 0.15 < odd < 0.2 else int(kind)
        offset = dice.choice(_EDGES) if 0.2 < odd < 0.22 else end
        tensors.append((name, shape, number, offset))
        if number in set(gguf.GGMLQuantizationType):
            block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)]
            values = 1
            for length in shape:
                values *= length
            end += -(-(values // block * size) // 32) * 32
        end = min(end, (1 << 64) - 1)
    return _Header(pairs=pairs, tensors=tensors)


def _value(dice: random.Random) -> Any:
    return dice.choice(
        (
            dice.choice(_EDGES),
            dice.choice(_NUMBERS),
            -dice.choice(_NUMBERS),
            dice.choice((0.0, -1.5, float("nan"), float("inf"))),
            dice.choice(("", "llama", "\u2028", "x" * 70_000)),
            dice.choice((True, False)),
            [dice.choice(_NUMBERS)] * dice.choice((0, 1, 4, 8, 9, 512, 1025)),
            dice.choices((0, 1, 2, 64), k=dice.choice((4, 6, 8, 9))),
        )
    )


def _packed(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int() if value >= 0:
            return struct.pack("<II", 4, value) if value < 1 << 32 else struct.pack("<IQ", 10, value)
        case int():
            return struct.pack("<Iq", 11, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
    numbers = list(map(int, value))
    return struct.pack(f"<IIQ{len(numbers)}I", 9, 4, len(numbers), *numbers)


def _text(value: str) -> bytes:
    data = value.encode(errors="surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _damage(whole: bytearray, dice: random.Random) -> None:
    at = dice.randrange(max(len(whole) - 8, 1))
    match dice.randrange(6):
        case 0:
            whole[at] = dice.randrange(256)
        case 1:
            whole[at : at + 8] = struct.pack("<Q", dice.choice(_EDGES))
        case 2:
            whole[at : at + 4] = struct.pack("<I", dice.choice(_EDGES) % (1 << 32))
        case 3:
            del whole[at : at + dice.choice((1, 4, 8, 100))]
        case 4:
            whole[at:at] = whole[at : at + dice.choice((1, 4, 8, 100, 1000))]
        case 5:  # the counts of tensors and pairs
            whole[8 + 8 * dice.randrange(2) :][:8] = struct.pack("<Q", dice.choice(_EDGES))


# -- a longer run ----------------------------------------------------------------------------------


def _findings(numbers: range, folder: Path, counted: Counter[str]) -> Iterator[str]:
    path = folder / "m.gguf"
    for number in numbers:
        path.write_bytes(case(number))
        if number % 500 == 0:  # as large as a file may be, so that lengths in it are believed
            with path.open("r+b") as file:
                file.truncate(1 << 40)
        begun = time.monotonic()
        try:
            counted[read_by_all(path) or "read"] += 1
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            yield f"{number}: {type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error}"
        if (took := time.monotonic() - begun) > _SLOW_S:
            yield f"{number}: {took:.1f} s"


def main() -> int:
    """Run, print findings, and end with 1 if there are any."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--cases", type=int, default=60_000)
    flags.add_argument("--first", type=int, default=0)
    given = flags.parse_args()
    begun, found, counted = time.monotonic(), 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for line in _findings(range(given.first, given.first + given.cases), Path(folder), counted):
            found += 1
            sys.stdout.write(f"{line}\n")
    line, code = summary("headers", given.cases, begun, found, counted)
    sys.stdout.write(line)
    return code


if __name__ == "__main__":
    sys.exit(main())
