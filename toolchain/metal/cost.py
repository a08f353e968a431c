"""`metal.cost`: what attention costs on a tree, counted by the harness on the dispatches of the tree's own host code.

One table for the types of upstream, by upstream's own kernels, and for ours. Everything that an operation dispatches is
counted: decoding, padding, joining.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..core.config import Config
from ..core.console import Console
from ..core.errors import KernelInvalid
from ..core.records import record
from ..series.manifest import Series
from . import cases
from .attention import Attention, pose
from .execute import Executed, execute, unwritten
from .formats import Format, formats
from .host import Host, build_host
from .libraries import Libraries
from .runs import compile_tree, operations

MATRIX = 8 * 8 * 8
"""multiplications and additions of one product of SIMD-group matrices"""
SECONDS = 3000.0
_Q, _MASK, _SINKS = 1, 4, 5


@record
class Shape:
    """A dispatch to count: `group` heads of the queries on each of `kv_heads`."""

    queries: int
    group: int
    kv_heads: int
    positions: int


@record
class Cost:
    """What attention took, for a value of K or V and a query head that uses it."""

    k: str
    v: str
    queries: int
    group: int
    positions: int
    operations: float
    """arithmetic of all threads, matrices aside"""
    matrix: float
    """multiplications with addition in SIMD-group matrices, rows and columns that are padding included"""
    read: float
    """bytes of K, V and work memory that were loaded, each once for a threadgroup"""
    loaded: float
    """the same as often as a thread loaded them"""
    bytes_per_value: float
    """what K and V take in the cache"""
    threadgroup_bytes: int
    """the most of any dispatch"""
    kernels: tuple[str, ...]


@record
class Costs:
    """All of a tree, at one head size."""

    tree: str
    head: int
    costs: tuple[Cost, ...]


def pairs(own: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Types of K and V to count: upstream's, our `own`, and the first of these with keys of upstream's."""
    return (*((name, name) for name in (*cases.FOREIGN, *own)), ("q8_0", own[0]))


def shapes(depths: Sequence[int], prompts: Sequence[int]) -> Iterator[Shape]:
    """One query with 1, 4 and 8 heads on one of the cache at each depth, and 32 and 512 queries with 4."""
    for positions in depths:
        for group in (1, 4, 8):
            yield Shape(queries=1, group=group, kv_heads=1, positions=positions)
    for positions in prompts:
        for queries in (32, 512):
            # as many heads as make a prompt fill a GPU, so that nothing has to be joined
            yield Shape(queries=queries, group=4, kv_heads=4, positions=positions)


def measure(
    tree: Path,
    series: Series,
    config: Config,
    workspace: Path,
    console: Console,
    *,
    head: int = 128,
    depths: Sequence[int] = (1024, 16384),
    prompts: Sequence[int] = (2048,),
) -> Costs:
    """Count the shapes at head size `head` on a patched tree. Raises as `runs.run_tree`."""
    with console.step("compile the host code"):
        host = build_host(tree, config, workspace)
    known = formats(series, config, workspace)
    chosen = pairs([kind.name for kind in series.types])
    wanted = [
        Attention(k=k, v=v, dk=head, dv=head, queries=shape.queries, heads=shape.group * shape.kv_heads,
                  kv_heads=shape.kv_heads, positions=shape.positions)
        for shape in shapes(depths, prompts) for k, v in chosen
    ]  # fmt: skip
    tiny = [pose(Attention(k=k, v=v, dk=head, dv=head), known).operation for k, v in chosen]
    library = compile_tree(tree, host, workspace, tiny, kernels=())
    with console.step(f"count {len(wanted)} dispatches"), ThreadPoolExecutor(2) as pool:
        costs = tuple(pool.map(lambda case: count(host, library, case, known), wanted))
    return Costs(tree=str(tree), head=head, costs=costs)


def count(host: Host, library: Libraries, case: Attention, known: dict[str, Format]) -> Cost:
    """One case. Raises `KernelInvalid` for one that the host code does not claim."""
    posed = pose(case, known)
    done = execute(host, library, posed.operation, posed.operands, unwritten(4 * posed.expected.size), SECONDS)
    if not done.recorded.claimed:
        raise KernelInvalid(f"the host code does not claim attention over {case.k}/{case.v}")
    uses = case.queries * case.heads * case.positions * (case.dk + case.dv)
    read, loaded = _read(done)
    return Cost(
        k=case.k, v=case.v, queries=case.queries, group=case.heads // case.kv_heads, positions=case.positions,
        operations=operations(done.reports, case),
        matrix=sum(report.meetings.get("matrix multiply", 0) for report in done.reports) * MATRIX / uses,
        read=read / uses, loaded=loaded / uses,
        bytes_per_value=(known[case.k].row(case.dk) + known[case.v].row(case.dv)) / (case.dk + case.dv),
        threadgroup_bytes=max(
            library.of(dispatch).threadgroup_bytes(dispatch.kernel) + dispatch.memory
            for dispatch in done.recorded.dispatches
        ),
        kernels=tuple(dispatch.kernel for dispatch in done.recorded.dispatches),
    )  # fmt: skip


def _read(done: Executed) -> tuple[int, int]:
    """Bytes loaded from everything but Q, mask and sinks: once for each threadgroup, and in all."""
    once = loaded = 0
    for dispatch, report in zip(done.recorded.dispatches, done.reports, strict=True):
        for slot, (tensor, _) in dispatch.buffers.items():
            if tensor not in (_Q, _MASK, _SINKS):
                once += report.buffer_traffic[int(slot)].read_once
                loaded += report.buffer_traffic[int(slot)].load_bytes
    return once, loaded
