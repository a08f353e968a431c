"""An estimate of generation's time from counted costs: what a GPU's peaks allow, whichever is reached first.

It is no measurement: latency, occupancy, registers and caches are left out. So it says which type is limited by what,
and how types compare, rather than how many milliseconds a token will take.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..core.records import record
from .cost import Cost


@record
class Gpu:
    """Peaks: bytes from memory and operations of single lanes, each in a second. `source` says where they are from."""

    name: str
    bytes_per_second: float
    operations_per_second: float
    source: str


@record
class Model:
    """What a token asks for: bytes of weights, and values of K and V at each position over all layers."""

    name: str
    weight_bytes: float
    values_per_position: int
    source: str


@record
class Estimate:
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
CLASS_27B = Model(
    name="27B class at Q4_K_M",
    weight_bytes=16e9,
    values_per_position=86_016,
    source="16 GB of weights, and 22 GB of f16 cache at 128K: 42 layers of 8 heads of 128 for K and V each",
)


def estimates(
    costs: Iterable[Cost], depths: Iterable[int] = (32768, 131072), gpu: Gpu = M3_MAX, model: Model = CLASS_27B
) -> tuple[Estimate, ...]:
    """For each type with one query and 4 heads on one of K and V, by what it costs at its largest counted depth."""
    found: dict[str, Cost] = {}
    for cost in costs:
        name = cost.k if cost.k == cost.v else f"{cost.k}:{cost.v}"
        known = found.get(name)
        if (cost.queries, cost.group) == (1, 4) and (known is None or cost.positions > known.positions):
            found[name] = cost
    return tuple(_estimate(name, cost, depth, gpu, model) for depth in depths for name, cost in found.items())


def report(found: Iterable[Estimate], gpu: Gpu = M3_MAX, model: Model = CLASS_27B) -> str:
    """A table, with what it was taken from."""
    lines = [
        f"ESTIMATE by peaks alone, {gpu.name}, {model.name}; milliseconds for a token",
        f"  {gpu.source}",
        f"  {model.source}",
        f"  {'K/V':<12} {'positions':>9} {'arithmetic':>10} {'memory':>8} {'(uncached)':>10} {'weights':>8}"
        f" {'token':>8}",
    ]
    lines += [
        f"  {one.type:<12} {one.positions:>9} {one.arithmetic:>10.1f} {one.memory:>8.1f} {one.memory_uncached:>10.1f}"
        f" {one.weights:>8.1f} {one.token:>8.1f}"
        for one in found
    ]
    return "\n".join(lines)


def _estimate(name: str, cost: Cost, positions: int, gpu: Gpu, model: Model) -> Estimate:
    values = model.values_per_position * positions
    spent = (cost.operations + cost.matrix) * cost.group * values
    read = cost.read * cost.group * values
    return Estimate(
        type=name,
        positions=positions,
        arithmetic=1e3 * spent / gpu.operations_per_second,
        memory=1e3 * cost.bytes_per_value * values / gpu.bytes_per_second,
        memory_uncached=1e3 * read / gpu.bytes_per_second,
        weights=1e3 * model.weight_bytes / gpu.bytes_per_second,
    )
