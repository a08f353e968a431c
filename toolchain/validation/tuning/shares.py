"""What K and V of each layer lose with each type: the KL of one layer's K or V at a coarse type, the rest f16.

    KL of a setting         = floor + sum of loss(layer, side, type)
    loss(layer, side, type) = share(layer, side) x factor(side, type)
    floor                   = KL of q8_0. It hardly depends on what is quantized: another order of rounding is enough
                              for it, as a model with quantized weights quantizes its activations, too
    share                   = KL of that K or V alone at the coarsest type, where the signal is large, less the floor
    factor                  = (KL of all K, or V, at the type, less the floor) / sum of the shares

Where all K, or all V, at a type lose more than `ADDITIVE`, the losses do not add up: the whole loses more than the sum.
The factor then comes from the layers with the largest shares, each alone; that of the coarsest type is 1. So a model of
n layers needs 2 n runs, and two for each type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...core.cachetypes.table import bits_per_value
from ...core.records import record
from ...models.quality.divergence import Compared, Reference
from ...models.quality.measure import Estimate
from ...stages import CacheType
from ..store import Store
from ..trial import Progress

Side = str
SIDES: tuple[Side, ...] = ("k", "v")
FLOAT, FINE = "f16", "q8_0"
ADDITIVE = 0.05
"""nats per token; on SmolLM2 all K at turbo3 lose 0.13, and 1.4 times the sum of its layers"""
_LARGEST = 2
"""layers of each side that give the factor of a type that is not additive"""


@record
class Share:
    """The loss of K or V of one layer at the coarsest type, in nats per token."""

    side: Side
    layer: int
    kl: Estimate


@record
class Factor:
    """The loss of all K, or all V, at a type; and that of a layer's at the type, for a share of 1."""

    side: Side
    type: str
    kl: Estimate
    factor: float


@record
class Losses:
    """The additive model of a text and its types."""

    coarsest: str
    floor: Estimate
    """KL of q8_0, or of f16 where no layer can have that"""
    shares: tuple[Share, ...]
    factors: tuple[Factor, ...]

    @property
    def layers(self) -> int:
        """Number of attention layers."""
        return 1 + max(one.layer for one in self.shares)

    def table(self) -> Mapping[Side, Sequence[Mapping[str, float]]]:
        """The loss by side, layer and type."""
        factors = {(one.side, one.type): one.factor for one in self.factors}
        return {
            side: [
                {name: one.kl.mean * factor for (of, name), factor in factors.items() if of == side} | {FLOAT: 0.0}
                for one in self.shares
                if one.side == side
            ]
            for side in SIDES
        }

    def predicted(self, k: Sequence[str], v: Sequence[str]) -> Estimate:
        """The KL of these types of each layer; its error comes from those of the shares and of the floor."""
        if not {*k, *v} - {FLOAT}:
            return Estimate(mean=0.0, error=0.0)
        factors = {(one.side, one.type): one.factor for one in self.factors}
        types = {"k": k, "v": v}
        parts = [(one.kl, factors.get((one.side, types[one.side][one.layer]), 0.0)) for one in self.shares]
        errors = [self.floor.error, *(share.error * factor for share, factor in parts)]
        return Estimate(
            mean=self.floor.mean + sum(share.mean * factor for share, factor in parts),
            error=math.sqrt(sum(error**2 for error in errors)),
        )


def alone(side: Side, layers: range, name: str) -> str:
    """The setting with `name` for K or V of some adjacent layers, and f16 for the rest."""
    span = f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else f"{layers[0]}"
    rule = f"{FLOAT},layers={span}:{name}"
    return f"{rule}:{FLOAT}" if side == "k" else f"{FLOAT}:{rule}"


def whole(side: Side, name: str) -> str:
    """The setting with `name` for all K or V, and f16 for the rest."""
    return f"{name}:{FLOAT}" if side == "k" else f"{FLOAT}:{name}"


def runs(layers: int, together: Mapping[Side, int], types: Sequence[CacheType]) -> int:
    """How many runs `measure` needs, where all types are additive."""
    spans = sum(-(-layers // together[side]) for side in SIDES)
    return 1 + spans + 2 * len(_quantized(types))


def measure(
    reference: Reference,
    store: Store,
    *,
    layers: int,
    together: Mapping[Side, int],
    types: Sequence[CacheType],
    fine: bool,
    progress: Progress,
) -> Losses:
    """The losses of all `types` (f16 is the one that loses nothing). Every run is a kept cell.

    `together`: how many adjacent layers one run measures, for K and for V; they get equal shares. `fine`: whether
    every layer can have q8_0. Raises what `Reference` raises.
    """
    names = [kind.name for kind in _quantized(types)]
    coarsest = names[0]

    def run(key: str, cache: str, *, counted: bool = True) -> Estimate:
        measured = not store.has(key)
        found = store.kept(key, Compared, lambda: compared(reference, cache)).kl
        if counted:
            progress.advance(cache, measured=measured)
        return found

    floor = run(f"floor/{FINE if fine else FLOAT}", FINE if fine else FLOAT)

    def single(side: Side, span: range, name: str) -> Estimate:
        key = f"alone/{side}/{name}/{span[0]:03}-{span[-1]:03}"
        return _above(run(key, alone(side, span, name), counted=name == coarsest), floor)

    shares, factors = [], []
    for side in SIDES:
        spans = [range(first, min(first + together[side], layers)) for first in range(0, layers, together[side])]
        found = [(single(side, span, coarsest), span) for span in spans]
        for kl, span in found:
            part = Estimate(mean=kl.mean / len(span), error=kl.error / len(span))
            shares += [Share(side=side, layer=layer, kl=part) for layer in span]
        largest = sorted(found, key=lambda one: -one[0].mean)[:_LARGEST]
        for name in names:
            whole_kl = _above(run(f"whole/{side}/{name}", whole(side, name)), floor)
            if whole_kl.mean <= ADDITIVE:
                factor = whole_kl.mean / sum(kl.mean for kl, _ in found)
            elif name == coarsest:
                factor = 1.0
            else:
                factor = sum(single(side, span, name).mean for _, span in largest) / sum(kl.mean for kl, _ in largest)
            factors.append(Factor(side=side, type=name, kl=whole_kl, factor=factor))
    return Losses(coarsest=coarsest, floor=floor, shares=tuple(shares), factors=tuple(factors))


def compared(reference: Reference, cache: str) -> Compared:
    """A run; the logits that it is compared with are made before the first."""
    reference.make()
    return reference.compare(cache)


def _quantized(types: Sequence[CacheType]) -> list[CacheType]:
    """Without f16, the coarsest first."""
    return sorted((kind for kind in types if kind.name != FLOAT), key=bits_per_value)


def _above(found: Estimate, floor: Estimate) -> Estimate:
    """A loss without the floor; never quite zero."""
    return Estimate(mean=max(found.mean - floor.mean, 1e-7), error=found.error)
