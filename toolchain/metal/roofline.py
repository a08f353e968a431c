"""An estimate of generation's time from counted costs: what a GPU's peaks allow, whichever is reached first.

It is no measurement: latency, occupancy, registers and caches are left out. So it says which type is limited by what,
and how types compare, rather than how many milliseconds a token will take.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..core.records import record
from ..core.run import Run
from ..series.manifest import load_series
from . import cost
from .cost import Cost, Costs


@record
class Gpu:
    """Peaks: bytes from memory and operations of single lanes, each in a second. `source` says where they are from."""

    name: str
    bytes_per_second: float
    operations_per_second: float
    source: str


@record
class Workload:
    """What a token asks for: bytes of weights, and values of K and V at each position over all layers."""

    name: str
    weight_bytes: float
    values_per_position: int
    source: str


@record
class TokenEstimate:
    """Milliseconds for one token at a depth, all by peaks alone."""

    type: str
    positions: int
    arithmetic: float
    """of attention"""
    memory: float
    """of attention, if every byte of K and V comes from memory once, however many heads read it"""
    memory_uncached: float
    """the same if each threadgroup's reads go to memory"""
    weights: float

    @property
    def token(self) -> float:
        """The weights, and attention by whatever takes longest; reads of other heads are taken to be cached."""
        return self.weights + max(self.arithmetic, self.memory)


M3_MAX = Gpu(
    name="M3 Max, 40 cores",
    bytes_per_second=400e9,
    operations_per_second=40 * 128 * 1.38e9,
    source="Apple's specifications: 400 GB/s, 40 cores; 128 lanes for each at 1.38 GHz make the 14.1 TFLOPS that are"
    " published for it. Every counted operation and every multiplication with addition takes a lane once",
)
CLASS_27B = Workload(
    name="27B class at Q4_K_M",
    weight_bytes=16e9,
    values_per_position=86_016,
    source="16 GB of weights, and 22 GB of f16 cache at 128K: 42 layers of 8 heads of 128 for K and V each",
)


class TokenEstimates(tuple[TokenEstimate, ...]):
    """For each type and depth, on the GPU and for the model below unless others are named."""


def estimates(
    costs: Iterable[Cost], depths: Iterable[int] = (32768, 131072), gpu: Gpu = M3_MAX, model: Workload = CLASS_27B
) -> TokenEstimates:
    """For each type with one query and 4 heads on one of K and V, by what it costs at its largest counted depth."""
    found: dict[str, Cost] = {}
    for one in costs:
        name = one.k if one.k == one.v else f"{one.k}:{one.v}"
        known = found.get(name)
        if (one.queries, one.group) == (1, 4) and (known is None or one.positions > known.positions):
            found[name] = one
    return TokenEstimates(_estimate(name, one, depth, gpu, model) for depth in depths for name, one in found.items())


def _estimate(name: str, spent_on: Cost, positions: int, gpu: Gpu, model: Workload) -> TokenEstimate:
    values = model.values_per_position * positions
    spent = (spent_on.operations + spent_on.matrix) * spent_on.group * values
    read = spent_on.read * spent_on.group * values
    return TokenEstimate(
        type=name,
        positions=positions,
        arithmetic=1e3 * spent / gpu.operations_per_second,
        memory=1e3 * spent_on.bytes_per_value * values / gpu.bytes_per_second,
        memory_uncached=1e3 * read / gpu.bytes_per_second,
        weights=1e3 * model.weight_bytes / gpu.bytes_per_second,
    )


@record
class CostEstimate:
    """What was counted, and what a GPU's peaks make of it."""

    counted: Costs
    estimates: TokenEstimates


def measure(run: Run, tree: Path, head: int, depths: Sequence[int], prompts: Sequence[int]) -> CostEstimate:
    """Count attention on a patched tree, at `depths` for one query and `prompts` for many; raises as `cost.measure`."""
    found = cost.measure(
        tree, load_series(run), run.config, run.workspace, run.console, head=head,
        depths=tuple(depths) or (1024, 16384), prompts=tuple(prompts) or (2048,),
    )  # fmt: skip
    return CostEstimate(counted=found, estimates=estimates(found.costs))
