"""The operations that a cache of our types needs from a backend: every pair of types, at the numbers of queries where
upstream switches kernels; and the same with one operand of another type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..core.cachetypes.table import BESIDE
from ..core.records import record
from ..metal.host import Kind, Operation, Tensor

QUERIES = (1, 31, 32, 33, 512)
SIZES = ((64, 64), (128, 128), (256, 256), (576, 512))
"""head sizes of K and V: small, common, large, and one of MLA"""
HEADS, POSITIONS = 4, 512
_SCALE = 0x3F800000

NAMES = {
    "FLASH_ATTN_EXT": ("result", "Q", "K", "V", "mask", "sinks"),
    "SET_ROWS": ("result", "source", "rows"),
    "GET_ROWS": ("result", "source", "rows"),
    "CPY": ("result", "source"),
}
"""names of an operation's tensors, by number"""


@record
class Posed:
    """An operation for the recorder, with the properties that are tested."""

    operation: Operation
    types: str
    """K:V, or from:to"""
    size: str
    queries: int

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """By number: the result, then the operands."""
        return (self.operation.result, *self.operation.operands)


def pairs(own: Sequence[str], known: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of types for K and V, at least one of them ours."""
    foreign = [name for name in BESIDE if name in known]
    for name in own:
        for other in (*own, *foreign):
            yield other, name
            if other not in own:
                yield name, other


def operations(kinds: dict[str, Kind], own: Sequence[str]) -> Iterator[Posed]:
    """All of them, for the types `own` of a tree that has `kinds`."""
    for k, v in pairs(own, list(kinds)):
        for dk, dv in SIZES:
            if dk % kinds[k].block or dv % kinds[v].block:
                continue
            for queries in QUERIES:
                yield attention(kinds, k, v, (dk, dv), queries)
    for name in own:
        yield from _rows(kinds, name)


def attention(kinds: dict[str, Kind], k: str, v: str, size: tuple[int, int], queries: int) -> Posed:
    """Attention of `queries` queries over a cache, with its heads side by side as in a cache."""
    dk, dv = size
    f32 = kinds["f32"]
    operation = Operation(
        name="FLASH_ATTN_EXT",
        result=_tensor(f32, dv, HEADS, queries),
        operands=(
            _tensor(f32, dk, queries, HEADS),
            _tensor(kinds[k], dk, POSITIONS, 1),
            _tensor(kinds[v], dv, POSITIONS, 1),
            _tensor(kinds["f16"], POSITIONS, -(-queries // 64) * 64),
            None,
        ),
        parameters=(_SCALE, 0, 0),
    )
    return Posed(operation=operation, types=f"{k}:{v}", size=str(dk) if dk == dv else f"{dk}/{dv}", queries=queries)


def retyped(posed: Posed, number: int, kind: Kind) -> Posed | None:
    """The same with another type for one tensor; None if its rows are not whole blocks."""
    tensor = posed.tensors[number]
    if tensor is None or tensor.ne[0] % kind.block:
        return None
    other = _tensor(kind, *tensor.ne)
    if number == 0:
        return replace(posed, operation=replace(posed.operation, result=other))
    operands = list(posed.operation.operands)
    operands[number - 1] = other
    return replace(posed, operation=replace(posed.operation, operands=tuple(operands)))


def _rows(kinds: dict[str, Kind], name: str) -> Iterator[Posed]:
    width, count = 128, 4
    stored, floats = _tensor(kinds[name], width, count), _tensor(kinds["f32"], width, count)
    for what, result, operands in (
        ("SET_ROWS", stored, (floats, _tensor(kinds["i64"], count))),
        ("GET_ROWS", floats, (stored, _tensor(kinds["i32"], count))),
        ("CPY", stored, (floats,)),
        ("CPY", floats, (stored,)),
    ):
        operation = Operation(name=what, result=result, operands=operands)
        types = f"{operands[0].type}:{result.type}"
        yield Posed(operation=operation, types=types, size=str(width), queries=count)


def _tensor(kind: Kind, *ne: int) -> Tensor:
    nb = [kind.bytes, ne[0] // kind.block * kind.bytes]
    for n in ne[1:]:
        nb.append(nb[-1] * n)
    return Tensor(type=kind.name, ne=ne, nb=tuple(nb[: len(ne)]))
