"""The file by which llama-server knows how a model's keys are stored: less a constant, their channels scaled.

Little endian:

    "TQKC", u32 version (1), u64 key of the model, u32 tokens read, u32 layers
    layers x (u32 layer, u32 KV heads, u32 size of a head, f32 offsets x heads x size, f32 scales x heads x size)
    u64 FNV-1a of all bytes before it
    a JSON document: where it comes from

Stored is scale * (key - offset), by channel, behind RoPE and before the rotation; queries are divided by the scale.
patches/kernels/llama-kv-calibration.cpp reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import gguf as reader
import msgspec
import numpy as np

from ...build.quantizers import Floats
from ...core.errors import ModelInvalid, StateInvalid
from ...core.records import make_folder, read_bytes, record, to_json_line, write_bytes
from ..memory.gguf import ModelHeader

SUFFIX = ".calibration"
VERSION = 1
_AGAIN = "./inv quality.calibrate makes it anew"
_MAGIC = b"TQKC"
_HEAD = struct.Struct("<4sIQII")
_LAYER = struct.Struct("<III")
_DIGEST = struct.Struct("<Q")
_KEY_TENSORS = ("output_norm.weight", "blk.0.attn_norm.weight")
"""small, always f32, trained: two models that share them differ in little else"""


@record
class Stored:
    """How a layer's keys are stored; both (KV heads, size of a head)."""

    offset: Floats
    """taken off the keys"""
    scale: Floats
    """what remains is multiplied by it: positive, and one number for both channels of a pair that RoPE turns"""

    @property
    def plain(self) -> bool:
        """Whether keys are stored as they are."""
        return not self.offset.any() and bool((self.scale == 1).all())


@record
class Origin:
    """Where a calibration comes from."""

    model: str
    """name of the file"""
    model_sha256: str
    text_sha256: str
    tokens: int
    lengths: tuple[int, ...]
    """whose means were averaged for the offsets"""


def model_key(header: ModelHeader) -> int:
    """What tells a model without its file: FNV-1a (64 bits) of the norms of output and first layer.

    Raises `ModelInvalid` for a model without them.
    """
    wanted = {tensor.name: tensor for tensor in header.tensors if tensor.name in _KEY_TENSORS}
    if len(wanted) < len(_KEY_TENSORS) or any(tensor.type != "F32" for tensor in wanted.values()):
        raise ModelInvalid(
            f"{header.name}: has no {' and '.join(_KEY_TENSORS)} in f32, by which the model is told",
            hint="run it without a calibration",
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


def save(folder: Path, key: int, layers: Mapping[int, Stored], origin: Origin) -> Path:
    """Write a model's calibration to its file in `folder`, atomically. Raises `DiskFull`."""
    parts = [_HEAD.pack(_MAGIC, VERSION, key, origin.tokens, len(layers))]
    for number, one in layers.items():
        parts.append(_LAYER.pack(number, *one.offset.shape))
        parts += [values.astype("<f4").tobytes() for values in (one.offset, one.scale)]
    data = b"".join(parts)
    make_folder(folder)
    path = folder / file_name(key)
    write_bytes(path, data + _DIGEST.pack(fnv1a(data)) + to_json_line(origin).encode())
    return path


def load(path: Path) -> tuple[int, dict[int, Stored], Origin]:
    """The model's key, what is done to each layer, and where it comes from. Raises `StateInvalid` for another file."""
    try:
        data = read_bytes(path)
    except OSError as error:
        raise StateInvalid(f"{path}: {error}", hint=_AGAIN) from error
    return parse(data, str(path))


def parse(data: bytes, about: str) -> tuple[int, dict[int, Stored], Origin]:
    """What `load` gives, of a file's contents; errors are `about` it. Raises `StateInvalid`."""
    try:
        magic, version, key, _, layers = _HEAD.unpack_from(data)
        if (magic, version) != (_MAGIC, VERSION):
            raise ValueError("not a calibration of keys, or of another version")
        at, found = _HEAD.size, dict[int, Stored]()
        for _ in range(layers):
            number, heads, size = _LAYER.unpack_from(data, at)
            at += _LAYER.size
            values = np.frombuffer(data, "<f4", 2 * heads * size, at).reshape(2, heads, size)
            at += values.nbytes
            found[number] = Stored(offset=values[0], scale=values[1])
        if _DIGEST.unpack_from(data, at)[0] != fnv1a(data[:at]):
            raise ValueError("damaged")
        return key, found, msgspec.json.decode(data[at + _DIGEST.size :], type=Origin)
    except (ValueError, struct.error, msgspec.MsgspecError) as error:
        raise StateInvalid(f"{about}: {error}", hint=_AGAIN) from error
