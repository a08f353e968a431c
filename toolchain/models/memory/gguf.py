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
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf

from ...core.errors import ModelInvalid
from ...core.records import record
from .origin import FileSource, HttpSource, ModelOrigin, no_gguf

HEADER_LIMIT = 256 << 20
"""bytes; the largest vocabularies take about 20 MiB"""
_MAX_ENTRIES = 1 << 17
_MAX_KEPT = 1024
"""longer arrays are vocabularies, whose values are not needed"""
_MAX_NAME = 1 << 16
_MAX_PARTS = 999
_WINDOW, _SMALL_WINDOW = 1 << 20, 1 << 15
_MAX_ALIGNMENT = 1 << 16
_MAX_VALUES = 1 << 62
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf()")
_PART_OF_URL = re.compile(r"([^?#]*)-(\d{5})-of-(\d{5})\.gguf([?#].*)")
_HINT = "download the model again, or verify its checksum"


@dataclasses.dataclass(frozen=True)
class Omitted:
    """An array that was skipped."""

    count: int


@record
class TensorInfo:
    """One tensor: `bytes` of data, without padding. `shape` is in ggml's order, the contiguous dimension first."""

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int


@record
class ModelHeader:
    """The headers of all files of a model: `parts` are their paths or URLs, `size` their bytes."""

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


def load(place: str) -> ModelHeader:
    """Read the header of the GGUF at `place`, a path or an http(s) URL; all parts of a split model.

    Raises `ModelInvalid`, naming the file and the offset of what is wrong.
    """
    first = parse(_open(place))
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
    parts = [parse(_open(f"{match[1]}-{number:05}-of-{match[3]}.gguf{match[4]}")) for number in range(1, count + 1)]
    for number, part in enumerate(parts):
        if _integer(part.metadata.get("split.no", -1)) != number:
            raise ModelInvalid(f"{part.name}: is not part {number + 1} of {count}", hint=_HINT)
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    total = _integer(parts[0].metadata.get("split.tensors.count", len(tensors)))
    if total != len(tensors) or len({tensor.name for tensor in tensors}) != len(tensors):
        raise ModelInvalid(f"{place}: {count} files have {len(tensors)} tensors, not {total} as stated", hint=_HINT)
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
    return parse(FileSource(path), until="tokenizer.", window=_SMALL_WINDOW)


def parse(source: ModelOrigin, *, until: str = "", window: int = _WINDOW) -> ModelHeader:
    """Read one file's header, up to the first key that begins with `until`, if given. Raises `ModelInvalid`."""
    cursor = _Cursor(source, window)
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
        metadata[key] = _value(cursor, cursor.scalar("I"))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.refuse(f"an alignment of {alignment!r}")
    tensors, data_bytes = _tensors(cursor, tensor_count, alignment)
    begin = _padded(cursor.at, alignment)
    header_only = bool(tensors) and source.size <= begin
    if not header_only and begin + data_bytes > source.size:
        raise ModelInvalid(
            f"{source.name}: truncated: the tensors end at byte {begin + data_bytes}, the file at byte {source.size}",
            hint=_HINT,
        )
    return ModelHeader(
        parts=(source.name,),
        metadata=metadata,
        tensors=tensors,
        size=source.size,
        header_only=header_only,
    )


def _open(place: str) -> ModelOrigin:
    return HttpSource(place) if place.startswith(("http://", "https://")) else FileSource(Path(place))


def _value(cursor: _Cursor, kind: int) -> Any:
    if kind in _SCALARS:
        return cursor.scalar(_SCALARS[kind])
    if kind == _STRING:
        return cursor.string(HEADER_LIMIT)
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
    return struct.unpack(f"<{count}{layout}", cursor.take(count * struct.calcsize(layout)))


def _tensors(cursor: _Cursor, count: int, alignment: int) -> tuple[tuple[TensorInfo, ...], int]:
    """The tensors, and the bytes of their data with padding."""
    found: dict[str, TensorInfo] = {}
    end = 0
    for _ in range(count):
        at = cursor.at
        name = cursor.string(_MAX_NAME)
        dimensions = cursor.scalar("I")
        if not 1 <= dimensions <= 4:
            raise cursor.refuse(f"the tensor {name!r} has {dimensions} dimensions", at=at)
        shape = tuple(cursor.scalar("Q") for _ in range(dimensions))
        kind, size = _type_and_bytes(cursor, name, shape, cursor.scalar("I"), at)
        if (offset := cursor.scalar("Q")) != end:
            raise cursor.refuse(
                f"the tensor {name!r} starts at {offset} of the data, the one before ends at {end}", at=at
            )
        if name in found:
            raise cursor.refuse(f"the tensor {name!r} occurs twice", at=at)
        found[name] = TensorInfo(name=name, shape=shape, type=kind, bytes=size)
        end = _padded(end + size, alignment)
    last = next(reversed(found.values())).bytes if found else 0
    return tuple(found.values()), end - (_padded(last, alignment) - last)


def _type_and_bytes(cursor: _Cursor, name: str, shape: tuple[int, ...], kind: int, at: int) -> tuple[str, int]:
    try:
        known = gguf.GGMLQuantizationType(kind)
        block, block_bytes = gguf.GGML_QUANT_SIZES[known]
    except (ValueError, KeyError):
        raise cursor.refuse(f"the tensor {name!r} is of ggml type {kind}, which is unknown", at=at) from None
    values = 1
    for length in shape:
        values *= length
        if length == 0 or values > _MAX_VALUES:
            raise cursor.refuse(f"the tensor {name!r} has the shape {shape}", at=at)
    if shape[0] % block:
        raise cursor.refuse(f"rows of {shape[0]} in {name!r} are not whole blocks of {known.name}", at=at)
    return str(known.name), values // block * block_bytes


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _integer(value: Any) -> int:
    return value if isinstance(value, int) else -1


class _Cursor:
    """A position in the file; reading past its end, or past the limit of a header, raises `ModelInvalid`."""

    def __init__(self, source: ModelOrigin, window: int) -> None:
        self.at = 0
        self._source, self._window_size = source, window
        self._window, self._start = b"", 0

    def refuse(self, why: str, at: int | None = None) -> ModelInvalid:
        return ModelInvalid(f"{self._source.name}: at byte {self.at if at is None else at}: {why}", hint=_HINT)

    def take(self, count: int) -> bytes:
        self._fill(count)
        begin = self.at - self._start
        self.at += count
        return self._window[begin : begin + count]

    def skip(self, count: int) -> None:
        self._require(count)
        self.at += count

    def scalar(self, layout: str) -> Any:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))[0]

    def string(self, limit: int) -> str:
        length = self.scalar("Q")
        if length > limit:
            raise self.refuse(f"a text of {length} bytes", at=self.at - 8)
        return self.take(length).decode("utf-8", errors="replace")

    def skip_strings(self, count: int) -> None:
        """Skip an array of texts, within the window without a call for each."""
        if count * 8 > self._source.size - self.at:
            raise self.refuse(f"an array of {count} texts in a file of {self._source.size} bytes", at=self.at - 8)
        length_at = struct.Struct("<Q").unpack_from
        while count:
            self._fill(8)
            window, at, last = self._window, self.at - self._start, len(self._window) - 8
            while count and at <= last:
                at += 8 + length_at(window, at)[0]
                count -= 1
            over = self._start + at - self.at
            self._require(over)
            self.at += over

    def _require(self, count: int) -> None:
        if count > self._source.size - self.at:
            raise ModelInvalid(
                f"{self._source.name}: truncated: {count} bytes expected after byte {self.at}, "
                f"found {self._source.size - self.at}",
                hint=_HINT,
            )
        if self.at + count > HEADER_LIMIT:
            raise self.refuse(f"the header needs {count} more bytes, beyond the limit of {HEADER_LIMIT >> 20} MiB")

    def _fill(self, count: int) -> None:
        """Read at least `count` bytes from here on into the window."""
        self._require(count)
        if self._start <= self.at and self.at + count <= self._start + len(self._window):
            return
        length = min(max(count, self._window_size), self._source.size - self.at)
        self._window, self._start = self._source.read(self.at, length), self.at
