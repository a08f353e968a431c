"""The sequence state that llama-server saves for a slot: the K and V of its cache, read back as NumPy arrays.

The layout (version 2, little endian), as llama.cpp writes it for one sequence:

    u32 magic "ggsq", u32 version, u32 n, n x i32                  the server's data on the prompt
    then for each cache (a model with sliding windows has two: full attention, then windowed)
      u32 streams = 1, u32 cells                                    nothing more for a cache without cells
      cells x (i32 position, u32 sequences = 1, [2 x i32], i32 0)   the pair only with multi-dimensional positions
      u32 transposed, u32 layers
      layers x (i32 type, u64 bytes of a row, cells rows)           K, a row being all heads of one cell
      layers x the same                                             V, where it is not transposed
      layers x (i32 type, u32 bytes of a value, u32 width, width x cells values)    V, where it is
    then, in hybrid models, the recurrent layers' state             which is not read

Models that cache only K (MLA) have no V records.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..core.errors import StateInvalid

_MAGIC = 0x67677371
_VERSION, _LAST_BUILD = 2, "b10488"
_DTYPES: dict[int, np.dtype[np.floating]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
Floats: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int32]
Decoder: TypeAlias = Callable[[int, bytes], Floats]
"""decodes blocks of a cache, of the type with this number in ggml, to float32 values"""
_HINT = "the server must be a llama.cpp that the series supports, with an f16 cache and one slot"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedLayer:
    """K and V of one layer, (cells, width) each; `v` is None in a model that derives it from K.

    `positions` are those of the cells' tokens; the layers of one cache share them.
    """

    k: Floats
    v: Floats | None
    positions: Integers


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedSlot:
    """A sequence's caches. `layers` are attention layers in the file's order; `rest` counts the unread bytes."""

    layers: tuple[SavedLayer, ...]
    rest: int


def load(path: Path, *, has_v: bool = True, decode: Decoder | None = None) -> SavedSlot:
    """Read a saved slot. `decode` decodes further types besides f16 and f32.

    Raises `StateInvalid` when it is truncated, damaged or of another layout, version or type.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StateInvalid(f"{path}: cannot be read: {error.strerror}") from error
    return parse(data, has_v=has_v, decode=decode, name=str(path))


def parse(data: bytes, *, has_v: bool = True, decode: Decoder | None = None, name: str = "state") -> SavedSlot:
    """As `load`, from memory."""
    reader = _SlotReader(data, name, decode)
    magic, version, tokens = reader.unpack("III")
    if magic != _MAGIC:
        raise reader.refuse(f"it begins with {magic:08x} and not {_MAGIC:08x}, so it is no saved slot", at=0)
    if version != _VERSION:
        raise StateInvalid(
            f"{name}: a slot saved in version {version} of llama.cpp's format; this toolkit reads version {_VERSION}, "
            f"which llama.cpp {_LAST_BUILD} writes",
            hint="build on a llama.cpp that writes the version read here, or use a toolkit that is of its time",
        )
    reader.skip(4 * tokens)
    layers: list[SavedLayer] = []
    while not reader.done and (not layers or reader.at_cache()):
        layers += _read_cache(reader, has_v)
    if not layers:
        raise reader.refuse("it has no cells")
    return SavedSlot(layers=tuple(layers), rest=reader.left)


def _read_cache(reader: _SlotReader, has_v: bool) -> list[SavedLayer]:
    streams, cells = reader.unpack("II")
    if streams != 1:
        raise reader.refuse(f"{streams} streams instead of 1")
    if cells == 0:
        return []
    size = _cell_bytes(reader, cells)
    positions = np.frombuffer(reader.peek(cells * size), dtype="<i4").reshape(cells, -1)[:, 0]
    reader.skip(cells * size)
    transposed, count = reader.unpack("II")
    if transposed > 1 or count == 0:
        raise reader.refuse(f"{count} layers, transposed {transposed}")
    keys = [_read_rows(reader, cells) for _ in range(count)]
    values: list[Floats | None] = [None] * count
    if has_v:
        values = [(_read_columns if transposed else _read_rows)(reader, cells) for _ in range(count)]
    return [SavedLayer(k=k, v=v, positions=positions) for k, v in zip(keys, values, strict=True)]


def _cell_bytes(reader: _SlotReader, cells: int) -> int:
    """Size of one cell's record. Whether positions have more dimensions is not stated, so both are tried."""
    for size in (12, 20):
        words = np.frombuffer(reader.peek(cells * size), dtype="<i4").reshape(cells, -1)
        if (words[:, 1] == 1).all() and (words[:, -1] == 0).all():
            return size
    raise reader.refuse(f"its {cells} cells are not those of one sequence")


def _read_rows(reader: _SlotReader, cells: int) -> Floats:
    (kind,), (row_bytes,) = reader.unpack("i"), reader.unpack("Q")
    if kind not in _DTYPES and reader.decode is not None:
        return reader.decoded(kind, cells, row_bytes)
    dtype = _dtype(reader, kind)
    if row_bytes == 0 or row_bytes % dtype.itemsize:
        raise reader.refuse(f"rows of {row_bytes} bytes")
    return reader.numbers(dtype, cells, row_bytes // dtype.itemsize)


def _read_columns(reader: _SlotReader, cells: int) -> Floats:
    kind, value_bytes, width = reader.unpack("iII")
    dtype = _dtype(reader, kind)
    if value_bytes != dtype.itemsize or width == 0:
        raise reader.refuse(f"{width} values of {value_bytes} bytes")
    return np.ascontiguousarray(reader.numbers(dtype, width, cells).T)


def _dtype(reader: _SlotReader, kind: int) -> np.dtype[np.floating]:
    if kind not in _DTYPES:
        raise reader.refuse(f"a cache of ggml type {kind}, which is neither f16 nor f32")
    return _DTYPES[kind]


class _SlotReader:
    """A position in the file; reading past its end raises `StateInvalid`."""

    def __init__(self, data: bytes, name: str, decode: Decoder | None) -> None:
        self.decode = decode
        self._data = data
        self._name = name
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    @property
    def done(self) -> bool:
        return self.left == 0

    def refuse(self, why: str, at: int | None = None) -> StateInvalid:
        return StateInvalid(f"{self._name}: at byte {self._at if at is None else at}: {why}", hint=_HINT)

    def peek(self, count: int) -> bytes:
        if count > self.left:
            raise StateInvalid(
                f"{self._name}: truncated: {count} bytes expected after byte {self._at}, found {self.left}",
                hint="the disk may have been full; save it again",
            )
        return self._data[self._at : self._at + count]

    def skip(self, count: int) -> None:
        self.peek(count)
        self._at += count

    def unpack(self, layout: str) -> tuple[int, ...]:
        layout = "<" + layout
        found = struct.unpack(layout, self.peek(struct.calcsize(layout)))
        self._at += struct.calcsize(layout)
        return found

    def numbers(self, dtype: np.dtype[np.floating], rows: int, width: int) -> Floats:
        raw = self.peek(rows * width * dtype.itemsize)
        self._at += len(raw)
        return self._finite(np.frombuffer(raw, dtype=dtype).reshape(rows, width).astype(np.float32))

    def decoded(self, kind: int, rows: int, row_bytes: int) -> Floats:
        """Rows of blocks as floats."""
        assert self.decode is not None
        raw = self.peek(rows * row_bytes)
        self._at += len(raw)
        values = self.decode(kind, raw)
        if values.size == 0 or values.size % rows:
            raise self.refuse(f"rows of {row_bytes} bytes, which are not whole blocks")
        return self._finite(values.reshape(rows, -1))

    def _finite(self, values: Floats) -> Floats:
        if not np.isfinite(values).all():
            raise self.refuse("the cache contains infinities or NaN")
        return values

    def at_cache(self) -> bool:
        """Whether another cache follows, and not the state of recurrent layers, whose cells name no sequence."""
        if self.left == 8:
            return True
        streams, cells, _position, sequences = struct.unpack("<4I", self.peek(16))
        return bool(streams == 1 and (cells == 0 or sequences == 1))
