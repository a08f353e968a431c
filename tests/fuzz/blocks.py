"""Bytes of a cache as blocks of the turbo types, which a damaged saved slot may hold, and such slots.

The decoders are compiled with sanitizers when a case first needs them.
"""

from __future__ import annotations

import random
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from tests.kernels.conftest import compile_kernels, compiler
from toolchain.serving import slot

from .subject import Subject, damaged

_SANITIZERS = ("-g", "-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
_ROWS = (b"\0", b"\xff", b"\x00\x7c", b"\x00\xfc", b"\x01\x00", b"\x00\x80", b"\xff\x7b", b"\x00\x7e")
_NUMBERS = (0, 1, 2, 3, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


def _bytes(dice: random.Random) -> bytes:
    size = dice.choice((0, 9, 34, 340, 4096, 50_000))
    if dice.random() < 0.3:
        return dice.choice(_ROWS) * size
    data = bytearray(dice.randbytes(size))
    for at in range(0, size - 2, dice.choice((18, 26, 34, 42))):
        data[at : at + 2] = (dice.choice(_ROWS) * 2)[:2]
    return bytes(data)


@cache
def _program() -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """The program, and its folder, which lives as long as the process."""
    folder = tempfile.TemporaryDirectory()
    program = Path(folder.name) / "blocks"
    compile_kernels(compiler(), program, str(Path(__file__).with_name("blocks.c")), *_SANITIZERS)
    return program, folder


def _decode(path: Path) -> None:
    done = subprocess.run([_program()[0], path], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode(errors="replace")[:2000]


def _slot(dice: random.Random) -> bytes:
    cells, layers, width = dice.choice((1, 3, 40)), dice.choice((1, 4)), dice.choice((64, 128))
    made = struct.pack("<III", 0x67677371, 2, 2) + bytes(8) + struct.pack("<II", 1, cells)
    made += b"".join(struct.pack("<3i", cell, 1, 0) for cell in range(cells)) + struct.pack("<II", 0, layers)
    kind, size = dice.choice(((0, 4), (1, 2), (250, 34), (42, 2)))
    row = struct.pack("<iQ", kind, width * size) + dice.randbytes(width * size * cells)
    made += row * layers * 2
    if dice.random() < 0.6:
        at = 4 * dice.randrange(len(made) // 4)
        made = made[:at] + struct.pack("<I", dice.choice(_NUMBERS)) + made[at + 4 :]
    return made if dice.random() < 0.4 else damaged(made, dice)


def _load(path: Path) -> None:
    def decode(kind: int, raw: bytes) -> slot.Floats:
        return np.frombuffer(raw[: len(raw) // 34 * 34], np.uint8).astype(np.float32)

    for has_v in (True, False):
        slot.load(path, has_v=has_v, decode=decode)


BLOCKS = Subject(make=_bytes, read=_decode, name="blocks")
SLOTS = Subject(make=_slot, read=_load, name="slot")
