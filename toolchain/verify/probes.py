"""The models that verification runs: random weights, with two head sizes."""

from __future__ import annotations

import errno
from pathlib import Path

from ..core.errors import DiskFull
from ..core.records import record
from ..serving.probe_model import ProbeGeometry, write_probe

HEAD_SIZES = (64, 128)
LAYERS, HEADS, KV_HEADS = 8, 4, 2
"""layers; more if the rules of a type need more"""
CONTEXT = 256
"""tokens; a multiple of llama.cpp's padding, and enough to distinguish cache sizes with two decimals of MiB"""
_SEED = 20260501


@record
class ProbeModel:
    """A model under test: its name in the server's store, its file and its sizes."""

    name: str
    path: Path
    geometry: ProbeGeometry


def write(folder: Path, layers: int = 0) -> list[ProbeModel]:
    """Write a model of each head size, with at least this many layers. Raises `DiskFull`."""
    try:
        return [_write(folder / f"probe-{size}.gguf", size, max(LAYERS, layers)) for size in HEAD_SIZES]
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(f"{folder}: no space for the probe models", hint="free some space") from error


def _write(path: Path, head_size: int, layers: int) -> ProbeModel:
    geometry = write_probe(
        path,
        head_size=head_size,
        heads=HEADS,
        kv_heads=KV_HEADS,
        layers=layers,
        context=CONTEXT,
        seed=_SEED + head_size,
    )
    return ProbeModel(name=path.stem, path=path, geometry=geometry)
