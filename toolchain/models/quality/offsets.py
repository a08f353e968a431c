"""What all keys of a head have in common: a vector that need not be stored.

Softmax does not change when the same number is added to all scores of a head, and q·c is one number for all keys. So
a cache may store keys less a constant c of each head: what remains has less energy, and a quantized type errs in
proportion to that. No decoder knows of it.

The constant is fitted behind RoPE, on keys as they are stored. RoPE turns a pair of channels by its position times the
pair's frequency, so what a pair has in common vanishes once the positions in use go round. The mean over the first n
positions is best for a context of n tokens, and worse than none for one many times longer; the mean of these means over
n = 512, 1024, ... up to the length that was read gains at all of these (docs/explanation/key-offsets.md).

The file, little endian:

    "TQKO", u32 version (1), u64 key of the model, u32 tokens read, u32 layers
    layers x (u32 layer, u32 KV heads, u32 size of a head, f32 x heads x size)
    u64 FNV-1a of all bytes before it
    a JSON document: where it comes from
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import gguf as reader
import msgspec
import numpy as np

from ...build.quantizers import Floats
from ...core.errors import ModelInvalid, StateInvalid
from ...core.records import make_folder, read_bytes, record, to_json_line, write_bytes
from ..memory.gguf import ModelHeader
from .queries import AttentionLayer

SHORTEST = 512
"""tokens; the mean over fewer is noise of the text"""
VARIABLE = "LLAMA_KV_OFFSETS"
"""for llama-server: the folder of the files; no keys are fitted that were stored with offsets"""
SUFFIX = ".offsets"
VERSION = 1
_MAGIC = b"TQKO"
_HEAD = struct.Struct("<4sIQII")
_LAYER = struct.Struct("<III")
_DIGEST = struct.Struct("<Q")
_KEY_TENSORS = ("output_norm.weight", "blk.0.attn_norm.weight")
"""small, always f32, trained: two models that share them differ in little else"""


@record
class OffsetsOrigin:
    """Where offsets come from."""

    model: str
    """name of the file"""
    model_sha256: str
    text_sha256: str
    tokens: int
    lengths: tuple[int, ...]
    """whose means were averaged"""


def lengths(tokens: int) -> tuple[int, ...]:
    """`tokens`, and its halves down to `SHORTEST`, in ascending order."""
    found = [tokens]
    while found[0] // 2 >= SHORTEST:
        found.insert(0, found[0] // 2)
    return tuple(found)


def fit(keys: Floats) -> Floats:
    """The offset (KV heads, size) of keys (tokens, KV heads, size) at positions 0, 1, 2 ..., behind RoPE."""
    sums = np.cumsum(keys, axis=0, dtype=np.float64)
    return np.asarray(np.mean([sums[n - 1] / n for n in lengths(len(keys))], axis=0), dtype=np.float32)


def fit_tested(first: Floats, second: Floats) -> tuple[Floats, float]:
    """The offset (KV heads, size) of the keys of two texts, each at positions 0, 1, 2 ..., and its gain in dB.

    What is fitted to one text is tested on the other, head by head and at each of `lengths`. A head whose keys have no
    less energy without it, on average over the lengths, has no offset: it would only harm. The gain is of all heads on
    the text that the offset was not fitted to.
    """
    fits = [fit(first), fit(second)]
    pairs = [(second, fits[0]), (first, fits[1])]
    for head in range(first.shape[1]):
        gains = [np.mean([gain_db(keys[:n, head], offset[head]) for n in lengths(len(keys))]) for keys, offset in pairs]
        if min(gains) <= 0:
            fits[0][head] = fits[1][head] = 0
    gain = sum(gain_db(keys, offset) for keys, offset in pairs) / len(pairs)
    return np.asarray((fits[0] + fits[1]) / 2, dtype=np.float32), gain


def gain_db(keys: Floats, offset: Floats) -> float:
    """By how much less energy the keys have without the offset, in dB: what a quantized type gains."""
    before, rest = (float(np.sum(np.square(values, dtype=np.float64))) for values in (keys, keys - offset))
    return 10 * math.log10(before / rest) if before and rest else 0.0


def why_not(layer: AttentionLayer) -> str:
    """Why a constant of a layer's keys would change its attention; empty if it would not."""
    if layer.sinks:
        return f"layer {layer.layer} has attention sinks, whose scores no offset moves"
    if layer.cap:
        return f"layer {layer.layer} caps its scores, so they are no longer a sum"
    return ""


def model_key(header: ModelHeader) -> int:
    """What tells a model without its file: FNV-1a (64 bits) of the norms of output and first layer.

    Raises `ModelInvalid` for a model without them.
    """
    wanted = {tensor.name: tensor for tensor in header.tensors if tensor.name in _KEY_TENSORS}
    if len(wanted) < len(_KEY_TENSORS) or any(tensor.type != "F32" for tensor in wanted.values()):
        raise ModelInvalid(
            f"{header.name}: has no {' and '.join(_KEY_TENSORS)} in f32, by which the model is told",
            hint="run it without offsets",
        )
    data: dict[str, bytes] = {}
    for part in header.parts:
        for tensor in reader.GGUFReader(part).tensors:
            if tensor.name in wanted:
                data[tensor.name] = tensor.data.tobytes()
    return fnv1a(b"".join(data[name] for name in _KEY_TENSORS))


def fnv1a(data: bytes) -> int:
    """The hash of Fowler, Noll and Vo, variant 1a, of 64 bits: it finds damage, not malice."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return found


def file_name(key: int) -> str:
    """The name of a model's file."""
    return f"{key:016x}{SUFFIX}"


def save(folder: Path, key: int, found: Sequence[tuple[int, Floats]], origin: OffsetsOrigin) -> Path:
    """Write the offsets (KV heads, size) of layers to their file in `folder`, atomically. Raises `DiskFull`."""
    parts = [_HEAD.pack(_MAGIC, VERSION, key, origin.tokens, len(found))]
    for layer, offset in found:
        parts += [_LAYER.pack(layer, *offset.shape), offset.astype("<f4").tobytes()]
    data = b"".join(parts)
    make_folder(folder)
    path = folder / file_name(key)
    write_bytes(path, data + _DIGEST.pack(fnv1a(data)) + to_json_line(origin).encode())
    return path


def load(path: Path) -> tuple[int, dict[int, Floats], OffsetsOrigin]:
    """The model's key, the offsets by layer, and where they come from. Raises `StateInvalid` for another file."""
    try:
        data = read_bytes(path)
        magic, version, key, _, layers = _HEAD.unpack_from(data)
        if (magic, version) != (_MAGIC, VERSION):
            raise ValueError("not a file of offsets, or of another version")
        at, found = _HEAD.size, dict[int, Floats]()
        for _ in range(layers):
            layer, heads, size = _LAYER.unpack_from(data, at)
            at += _LAYER.size
            values = np.frombuffer(data, "<f4", heads * size, at)
            found[layer] = values.reshape(heads, size)
            at += values.nbytes
        if _DIGEST.unpack_from(data, at)[0] != fnv1a(data[:at]):
            raise ValueError("damaged")
        return key, found, msgspec.json.decode(data[at + _DIGEST.size :], type=OffsetsOrigin)
    except (OSError, ValueError, struct.error, msgspec.MsgspecError) as error:
        raise StateInvalid(f"{path}: {error}", hint="./inv quality.offsets makes it anew") from error
