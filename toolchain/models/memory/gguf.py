"""The header of a GGUF file: its metadata and tensors. Nothing in it is trusted.

The layout (versions 2 and 3, little endian):

    u32 magic "GGUF", u32 version, u64 tensors, u64 pairs
    pairs x (string key, u32 type, value)             string: u64 length, bytes; array: u32 type, u64 count, values
    tensors x (string name, u32 dimensions, u64 each, u32 ggml type, u64 offset)
    padding to general.alignment (32), then the data of the tensors, in order, each padded

Long arrays (a vocabulary) are skipped; only their length is kept. A file may be one of several
(-00001-of-00003.gguf): `load` reads all of them.
"""

from __future__ import annotations

import dataclasses
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, TypeAlias

from ...core.errors import ModelInvalid
from ...core.records import record
from .cursor import DAMAGED, HEADER_LIMIT, Cursor
from .dialect import BUILT_IN, REMOVED, Dialect
from .ollama_compat import translated
from .origin import FileSource, HttpSource, ModelOrigin, no_gguf

_MAX_ENTRIES = 1 << 16
_MAX_KEPT = 1024
"""longer arrays are vocabularies, whose values are not needed"""
_MAX_TEXT = 1 << 20
"""bytes; longer texts are skipped, such as a tokenizer's JSON"""
_MAX_NAME = 1 << 16
_MAX_DATA = 1 << 50
"""bytes of all tensors"""
_ENTRY = 400
"""bytes of memory that a pair or a tensor takes beside its texts, and of a number in an array"""
_NUMBER = 40
_MAX_PARTS = 999
_WINDOW, _SMALL_WINDOW = 1 << 20, 1 << 15
_MAX_ALIGNMENT = 1 << 16
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_Stated: TypeAlias = tuple[tuple[int, ...], str, int, int]
_PACKAGE = version_of("gguf")
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf()")
_PART_OF_URL = re.compile(r"([^?#]*)-(\d{5})-of-(\d{5})\.gguf([?#].*)")


@dataclasses.dataclass(frozen=True)
class Omitted:
    """An array of this many values, or a text of this many bytes, that was skipped."""

    count: int


@record
class TensorInfo:
    """One tensor: `bytes` of data, without padding. `shape` is in ggml's order, the contiguous dimension first."""

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int
    part: int = 0
    """which of the model's files has the data, from 0"""
    at: int = 0
    """byte of that file where the data begin"""


@record
class ModelHeader:
    """The headers of all files of a model: `parts` are their paths or URLs, `size` their bytes.

    `metadata` are those that llama.cpp sees after Ollama's compat layer.
    """

    parts: tuple[str, ...]
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    size: int
    header_only: bool
    """the file ends before the data of the tensors"""

    @property
    def name(self) -> str:
        """The first file."""
        return self.parts[0]

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(tensor.bytes for tensor in self.tensors)


def load(place: str, dialect: Dialect = BUILT_IN) -> ModelHeader:
    """Read the header of the GGUF at `place`, a path or an http(s) URL; all parts of a split model.

    Raises `ModelInvalid`, naming the file and the offset of what is wrong.
    """
    return _translated(_load(place, dialect), dialect)


def _load(place: str, dialect: Dialect) -> ModelHeader:
    first = parse(_open(place), dialect)
    count = _integer(first.metadata.get("split.count", 0))
    if count <= 1:
        return first
    match = _PART.fullmatch(place)
    if match is None and "://" in place:  # a URL as sites offer it, such as ...gguf?download=true
        match = _PART_OF_URL.fullmatch(place)
    if match is None or int(match[3]) != count or count > _MAX_PARTS:
        raise ModelInvalid(
            f"{place}: states that it is one of {count} files, but its name does not end in -00001-of-{count:05}.gguf",
            hint="do not rename the parts",
        )
    parts = [
        parse(_open(f"{match[1]}-{number:05}-of-{match[3]}.gguf{match[4]}"), dialect) for number in range(1, count + 1)
    ]
    for number, part in enumerate(parts):
        if _integer(part.metadata.get("split.no", -1)) != number:
            raise ModelInvalid(f"{part.name}: is not part {number + 1} of {count}", hint=DAMAGED)
    tensors = tuple(replace(tensor, part=number) for number, part in enumerate(parts) for tensor in part.tensors)
    total = _integer(parts[0].metadata.get("split.tensors.count", len(tensors)))
    if total != len(tensors) or len({tensor.name for tensor in tensors}) != len(tensors):
        raise ModelInvalid(f"{place}: {count} files have {len(tensors)} tensors, not {total} as stated", hint=DAMAGED)
    return ModelHeader(
        parts=tuple(part.name for part in parts),
        metadata=parts[0].metadata,
        tensors=tensors,
        size=sum(part.size for part in parts),
        header_only=any(part.header_only for part in parts),
    )


def beginning(path: Path) -> ModelHeader:
    """The header without tensors and vocabulary, which most files state after all else: quick, from a few KiB.

    Metadata that come after the vocabulary are missing. Raises `ModelInvalid`.
    """
    return _translated(parse(FileSource(path), until="tokenizer.", window=_SMALL_WINDOW), BUILT_IN)


def parse(source: ModelOrigin, dialect: Dialect = BUILT_IN, *, until: str = "", window: int = _WINDOW) -> ModelHeader:
    """Read one file's header as it stands, up to the first key that begins with `until`, if given.

    Raises `ModelInvalid`.
    """
    cursor = Cursor(source, window)
    if cursor.take(4) != b"GGUF":
        raise no_gguf(source)
    version = cursor.scalar("I")
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in (1, 2, 3)
        raise cursor.refuse("a big-endian file" if swapped else f"GGUF version {version}, supported are 2 and 3", at=4)
    tensor_count, pair_count = cursor.scalar("Q"), cursor.scalar("Q")
    for what, count in (("tensors", tensor_count), ("pairs of metadata", pair_count)):
        if count > _MAX_ENTRIES:
            raise cursor.refuse(f"{count} {what}", at=8)
    metadata: dict[str, Any] = {}
    for _ in range(pair_count):
        at = cursor.at
        key = cursor.string(_MAX_NAME)
        if key in metadata:
            raise cursor.refuse(f"the key {key!r} occurs twice", at=at)
        if until and key.startswith(until):
            return ModelHeader(parts=(source.name,), metadata=metadata, tensors=(), size=source.size, header_only=False)
        cursor.keep(_ENTRY)
        metadata[key] = _value(cursor, cursor.scalar("I"))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.refuse(f"an alignment of {alignment!r}")
    tensors, data_bytes = _tensors(cursor, tensor_count, alignment, dialect)
    begin = _padded(cursor.at, alignment)
    # a file without data may end without padding, too
    header_only = data_bytes > 0 and source.size <= begin
    if data_bytes and not header_only and begin + data_bytes > source.size:
        raise ModelInvalid(
            f"{source.name}: truncated: the tensors end at byte {begin + data_bytes}, the file at byte {source.size}",
            hint=DAMAGED,
        )
    return ModelHeader(
        parts=(source.name,),
        metadata=metadata,
        tensors=tuple(
            TensorInfo(name=name, shape=shape, type=kind, bytes=size, at=begin + offset)
            for name, (shape, kind, size, offset) in tensors.items()
        ),
        size=source.size,
        header_only=header_only,
    )


def _translated(header: ModelHeader, dialect: Dialect) -> ModelHeader:
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    return replace(header, metadata=translated(header.metadata, shapes, dialect.renames))


def _open(place: str) -> ModelOrigin:
    return HttpSource(place) if place.startswith(("http://", "https://")) else FileSource(Path(place))


def _value(cursor: Cursor, kind: int) -> Any:
    if kind in _SCALARS:
        return cursor.scalar(_SCALARS[kind])
    if kind == _STRING:
        return _text(cursor)
    if kind != _ARRAY:
        raise cursor.refuse(f"a value of type {kind}")
    inner, count = cursor.scalar("I"), cursor.scalar("Q")
    if inner == _STRING:
        cursor.skip_strings(count)
        return Omitted(count)
    if inner not in _SCALARS:
        raise cursor.refuse(f"an array of type {inner}")
    layout = _SCALARS[inner]
    if count > _MAX_KEPT:
        cursor.skip(count * struct.calcsize(layout))
        return Omitted(count)
    cursor.keep(_NUMBER * count)
    return struct.unpack(f"<{count}{layout}", cursor.take(count * struct.calcsize(layout)))


def _text(cursor: Cursor) -> str | Omitted:
    at, length = cursor.at, cursor.scalar("Q")
    if length > HEADER_LIMIT:
        raise cursor.refuse(f"a text of {length} bytes", at=at)
    if length > _MAX_TEXT:
        cursor.skip(length)
        return Omitted(length)
    cursor.at = at
    return cursor.string(_MAX_TEXT)


def _tensors(cursor: Cursor, count: int, alignment: int, dialect: Dialect) -> tuple[dict[str, _Stated], int]:
    """Shape, type, bytes and offset of each tensor by its name; and the bytes of the data, to the end of the last."""
    found: dict[str, _Stated] = {}
    end = last = 0
    for _ in range(count):
        at = cursor.at
        name = cursor.string(_MAX_NAME)
        cursor.keep(_ENTRY)
        dimensions = cursor.scalar("I")
        if dimensions > 4:
            raise cursor.refuse(f"the tensor {name!r} has {dimensions} dimensions", at=at)
        shape = tuple(cursor.scalar("Q") for _ in range(dimensions))
        kind, size = _type_and_bytes(cursor, name, shape, cursor.scalar("I"), at, dialect)
        if (offset := cursor.scalar("Q")) != end:
            raise cursor.refuse(
                f"the tensor {name!r} starts at {offset} of the data, the one before ends at {end}", at=at
            )
        if name in found:
            raise cursor.refuse(f"the tensor {name!r} occurs twice", at=at)
        found[name] = (shape, kind, size, offset)
        last = end + size
        if last > _MAX_DATA:
            raise cursor.refuse(f"the tensor {name!r} would end at {last} of the data", at=at)
        end = _padded(last, alignment)
    return found, last


def _type_and_bytes(
    cursor: Cursor, name: str, shape: tuple[int, ...], number: int, at: int, dialect: Dialect
) -> tuple[str, int]:
    kind = dialect.types.get(number)
    if kind is None:
        known = " and ".join(filter(None, (dialect.source, f"the gguf package {_PACKAGE}")))
        origin = "older, or another fork's" if number in REMOVED else "newer, or another fork's"
        raise cursor.refuse(
            f"the tensor {name!r} is of ggml type {number}, unknown to {known}: it is {origin}",
            at=at,
            hint="take a file made by llama.cpp itself, or build on the llama.cpp that has the type",
        )
    values = math.prod(shape)
    if max(shape, default=0) >= 1 << 63 or values >= 1 << 63:
        raise cursor.refuse(f"the tensor {name!r} has the shape {shape}", at=at)
    row = shape[0] if shape else 1
    if row % kind.block:
        raise cursor.refuse(f"rows of {row} in {name!r} are not whole blocks of {kind.name}", at=at)
    return kind.name, values // kind.block * kind.bytes


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _integer(value: Any) -> int:
    return value if isinstance(value, int) else -1
