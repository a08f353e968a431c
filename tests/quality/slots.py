"""Saved slots as llama-server lays them out, written from numbers that the tests know."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Halves = npt.NDArray[np.float16]
MAGIC = 0x67677371


def header(tokens: Sequence[int], *, magic: int = MAGIC, version: int = 2) -> bytes:
    return struct.pack("<3I", magic, version, len(tokens)) + np.array(tokens, dtype="<i4").tobytes()


def cache(
    keys: Sequence[Halves],
    values: Sequence[Halves] | None,
    *,
    transposed: bool = False,
    dimensions: int = 1,
    kind: int | tuple[int, int] = 1,
) -> bytes:
    """One cache of layers of K (cells, width) and V; `dimensions` are those of a position, `kind` the type's number, or
    those of K and V."""
    kinds = kind if isinstance(kind, tuple) else (kind, kind)
    cells = len(keys[0])
    out = [struct.pack("<2I", 1, cells)]
    for position in range(cells):
        more = b"" if dimensions == 1 else struct.pack("<2i", position, position)
        out.append(struct.pack("<iI", position, 1) + more + struct.pack("<i", 0))
    out.append(struct.pack("<2I", transposed, len(keys)))
    for k in keys:
        out.append(struct.pack("<iQ", kinds[0], k.shape[1] * 2) + k.tobytes())
    for v in values or ():
        if transposed:
            out.append(struct.pack("<i2I", kinds[1], 2, v.shape[1]) + np.ascontiguousarray(v.T).tobytes())
        else:
            out.append(struct.pack("<iQ", kinds[1], v.shape[1] * 2) + v.tobytes())
    return b"".join(out)


def recurrent(position: int) -> bytes:
    """The head of a recurrent state of one cell and one layer, with some numbers."""
    return struct.pack("<IiIII", 1, position, 0, 0, 1) + struct.pack("<iQ", 0, 8) + bytes(8)


def numbers(rng: np.random.Generator, layers: int, cells: int, width: int) -> list[Halves]:
    return [rng.standard_normal((cells, width)).astype("<f2") for _ in range(layers)]
