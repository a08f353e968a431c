"""The setting that the shares recommend: the optimum, or one with fewer rules that loses no more within their error."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.cachetypes.grammar import CacheTypes
from ...core.records import record
from ...core.validation_errors import NothingFits
from ...models.memory.plan import GIB
from . import knapsack, merging, room, rules
from .room import Pair
from .shares import Losses


@record
class Chosen:
    """A setting within the bytes, and what is known of the optimum."""

    types: CacheTypes
    bytes: int
    optimum: float
    bound: float
    optimal: bool


def choose(pairs: Sequence[Sequence[Pair]], losses: Losses, size: int) -> Chosen:
    """The setting within `size` bytes. Raises `NothingFits`."""
    options = room.options(pairs, losses.table())
    try:
        best = knapsack.choose(options, size)
    except knapsack.TooLarge:
        smallest = sum(min(one.bytes for one in group) for group in pairs)
        raise NothingFits(
            f"{size / GIB:.3f} GiB are there for the cache, the smallest types take {smallest / GIB:.3f} GiB",
            hint="a shorter --context, or coarser --types",
        ) from None
    k, v = _sides(pairs, best.options)
    most = best.loss + losses.predicted(k, v).error
    found = []
    for taken in (best.options, *merging.merged(pairs, options, size, best.loss)):
        if (loss := sum(group[at].loss for group, at in zip(options, taken, strict=True))) <= most:
            types = rules.setting(*_sides(pairs, taken))
            found.append((len(types.k.rules) + len(types.v.rules), loss, taken, types))
    _, _, taken, types = min(found, key=lambda one: one[:2])
    return Chosen(
        types=types,
        bytes=sum(group[at].bytes for group, at in zip(pairs, taken, strict=True)),
        optimum=losses.floor.mean + best.loss,
        bound=losses.floor.mean + best.bound,
        optimal=best.optimal,
    )


def uniform(pairs: Sequence[Sequence[Pair]], losses: Losses, size: int) -> list[CacheTypes]:
    """What to compare with: of the settings with one type for all K and one for all V within `size` bytes, the best of
    one type, and the best of two."""
    table = losses.table()
    found = []
    for option in pairs[0]:
        held = [next((one for one in group if (one.k, one.v) == (option.k, option.v)), None) for group in pairs]
        if None not in held and sum(one.bytes for one in held if one) <= size:
            loss = sum(table["k"][layer][option.k] + table["v"][layer][option.v] for layer in range(len(pairs)))
            found.append((loss, option.k, option.v))
    found.sort()
    single = [one for one in found if one[1] == one[2]]
    chosen = dict.fromkeys((k, v) for _, k, v in (*single[:1], *found[:1]))
    return [rules.setting([k] * len(pairs), [v] * len(pairs)) for k, v in chosen]


def _sides(pairs: Sequence[Sequence[Pair]], taken: Sequence[int]) -> tuple[list[str], list[str]]:
    held = [group[at] for group, at in zip(pairs, taken, strict=True)]
    return [one.k for one in held], [one.v for one in held]
