"""What the harness counts for attention over each cache type, as times relative to each other."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..core.errors import ConfigError
from ..core.records import record
from ..core.run import Run
from ..metal.attention import Attention, pose
from ..metal.cost import Cost, count
from ..metal.formats import formats
from ..metal.host import build_host
from ..metal.roofline import M3_MAX
from ..metal.runs import compile_tree
from ..models.memory.geometry import Geometry
from ..series.manifest import load_series

_POSITIONS = 1024
"""costs for a value hardly depend on it"""
_PROMPT = 32
"""queries, from which on upstream takes its kernel for many"""


@record
class Heads:
    """One head of K and V, and how many of the queries use it."""

    size: int
    group: int


@record
class Counted:
    """Time of attention by cache type, in units without a meaning: a limit from peaks of arithmetic and memory."""

    generation: dict[str, float]
    prompt: dict[str, float]


def heads_of(model: Geometry) -> Heads:
    """Those of a model's first layer with a cache. Raises `ConfigError` for a layer that the harness cannot pose."""
    layer = model.cached[0] if model.cached else None
    if layer is None or not layer.head_k or layer.head_k != layer.head_v or layer.head_k % 64:
        raise ConfigError("the model's heads of K and V are not of one size that is a multiple of 64")
    return Heads(size=layer.head_k, group=max(1, model.heads // (layer.k // layer.head_k)))


def measure(run: Run, tree: Path, kinds: Sequence[str], heads: Heads) -> Counted:
    """Count one query and many over a cache of each type. Raises as `cost.measure`."""
    with run.console.step("count attention"):
        host = build_host(tree, run.config, run.workspace)
        known = formats(load_series(run), run.config, run.workspace)
        tiny = [pose(Attention(k=kind, v=kind, dk=heads.size, dv=heads.size), known).operation for kind in kinds]
        library = compile_tree(tree, host, run.workspace, tiny, kernels=())

        def spent(kind: str, queries: int) -> float:
            case = Attention(k=kind, v=kind, dk=heads.size, dv=heads.size, queries=queries, heads=heads.group,
                             positions=_POSITIONS)  # fmt: skip
            return time_of(count(host, library, case, known))

        with ThreadPoolExecutor(2) as pool:
            one = list(pool.map(lambda kind: spent(kind, 1), kinds))
            many = list(pool.map(lambda kind: spent(kind, _PROMPT), kinds))
    return Counted(generation=dict(zip(kinds, one, strict=True)), prompt=dict(zip(kinds, many, strict=True)))


def time_of(cost: Cost) -> float:
    """Seconds for a value of K or V that all queries use, on a GPU whose arithmetic and memory work side by side.

    The ratio of the two peaks is nearly the same on every Apple GPU, and only ratios are used.
    """
    arithmetic = (cost.operations + cost.matrix) * cost.group * cost.queries / M3_MAX.operations_per_second
    return max(arithmetic, cost.bytes_per_value / M3_MAX.bytes_per_second)
