"""How many of several models fit into memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ...core.cachetypes.grammar import CacheTypes
from ...core.errors import ToolchainError
from ...stages import CacheType
from . import geometry, gguf, plan
from .kv import Setting

MOST = 3
"""at a time, whatever the memory; Ollama's own limit for one GPU"""


def fitting(needs: Iterable[int], machine: plan.Hardware) -> int:
    """How many fit, were they the largest; from 1 to `MOST`. `needs` are the bytes of each."""
    room, count = min(machine.budget, machine.gpu or machine.budget), 0
    for need in sorted(needs, reverse=True)[:MOST]:
        room -= need
        count += room >= 0
    return max(count, 1)


def need(file: Path, further_bytes: int, types: CacheTypes, table: Mapping[str, CacheType], context: int) -> int:
    """Bytes of a model with `context` tokens; 0: those that it was trained on.

    Only its weights count where its cache is unknown. Raises `ModelInvalid`.
    """
    header = gguf.load(str(file))
    try:
        shape = geometry.read(header)
        tokens = context or shape.context_length
        found = plan.plan(
            header,
            shape,
            plan.Hardware(ram=0),
            types=[types],
            table=table,
            contexts=[tokens],
            setting=Setting(context=tokens),
            further_bytes=further_bytes,
        )
        return max((cell.total for cell in found.types[0].cells), default=header.tensor_bytes + further_bytes)
    except ToolchainError:  # its architecture, or a type that is not for it
        return header.tensor_bytes + further_bytes
