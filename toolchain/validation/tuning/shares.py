"""What K and V of each layer lose with each type: the KL of one layer's K or V at a coarse type, the rest f16.

    loss(layer, side, type) = share(layer, side) x factor(side, type)
    share                   = KL of that K or V alone at the coarsest type, where the signal is large
    factor                  = KL of all K (or V) at the type / sum of the shares of K (or V)

The losses of layers, and of K and V, add up nearly. So a model of n layers needs 2 n runs, and two for each type.
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
FLOAT = "f16"


@record
class Share:
    """The loss of K or V of one layer at the coarsest type, in nats per token."""

    side: Side
    layer: int
    kl: Estimate


@record
class Factor:
    """The loss of all K, or all V, at a type; and its ratio to the shares' sum."""

    side: Side
    type: str
    kl: Estimate
    factor: float


@record
class Losses:
    """The additive model of a text and its types."""

    coarsest: str
    floor: Estimate
    """KL of an f16 cache to itself"""
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
        """The loss of these types of each layer; its error comes from those of the shares alone."""
        factors = {(one.side, one.type): one.factor for one in self.factors}
        types = {"k": k, "v": v}
        parts = [(one.kl, factors.get((one.side, types[one.side][one.layer]), 0.0)) for one in self.shares]
        return Estimate(
            mean=sum(share.mean * factor for share, factor in parts),
            error=math.sqrt(sum((share.error * factor) ** 2 for share, factor in parts)),
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
    """How many runs `measure` needs."""
    spans = sum(-(-layers // together[side]) for side in SIDES)
    return 1 + spans + 2 * len(_quantized(types))


def measure(
    reference: Reference,
    store: Store,
    *,
    layers: int,
    together: Mapping[Side, int],
    types: Sequence[CacheType],
    progress: Progress,
) -> Losses:
    """The losses of all `types` (f16 is the one that loses nothing). Every run is a kept cell.

    `together`: how many adjacent layers one run measures, for K and for V; they get equal shares. Raises what
    `Reference` raises.
    """
    names = [kind.name for kind in _quantized(types)]
    coarsest = names[0]

    def run(key: str, cache: str) -> Estimate:
        measured = not store.has(key)
        found = store.kept(key, Compared, lambda: compared(reference, cache)).kl
        progress.advance(cache, measured=measured)
        return found

    floor = run("floor", FLOAT)
    shares = []
    for side in SIDES:
        for first in range(0, layers, together[side]):
            span = range(first, min(first + together[side], layers))
            key = f"alone/{side}/{coarsest}/{span[0]:03}-{span[-1]:03}"
            kl = _above(run(key, alone(side, span, coarsest)), floor)
            part = Estimate(mean=kl.mean / len(span), error=kl.error / len(span))
            shares += [Share(side=side, layer=layer, kl=part) for layer in span]
    sums = {side: sum(one.kl.mean for one in shares if one.side == side) for side in SIDES}
    factors = []
    for side in SIDES:
        for name in names:
            kl = _above(run(f"whole/{side}/{name}", whole(side, name)), floor)
            factors.append(Factor(side=side, type=name, kl=kl, factor=kl.mean / sums[side]))
    return Losses(coarsest=coarsest, floor=floor, shares=tuple(shares), factors=tuple(factors))


def compared(reference: Reference, cache: str) -> Compared:
    """A run; the logits that it is compared with are made before the first."""
    reference.make()
    return reference.compare(cache)


def _quantized(types: Sequence[CacheType]) -> list[CacheType]:
    """Without f16, the coarsest first."""
    return sorted((kind for kind in types if kind.name != FLOAT), key=bits_per_value)


def _above(found: Estimate, floor: Estimate) -> Estimate:
    """The loss without that of an f16 cache, which is that of the file of logits; never quite zero."""
    return Estimate(mean=max(found.mean - floor.mean, 1e-7), error=found.error)
