"""Types of single layers as the shortest setting: a base type, and as few rules as possible.

Where two rules name a layer the later one wins. So the fewest rules are the fewest strokes that paint a row of colours
over a ground: an interval's best painting starts with a stroke of its first cell's colour, which may show again at any
later cell of that colour, and paints what lies between over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from ...core.cachetypes.grammar import CacheTypes, LayerRule, LayerTypes

Strokes = tuple[tuple[int, int, str], ...]


def shortest(types: Sequence[str]) -> LayerTypes:
    """The setting for K (or V) of these types of each layer, with the fewest rules; the most frequent base of those."""

    @cache
    def painted(low: int, high: int, ground: str) -> Strokes:
        """The strokes, first to last, that give the cells from `low` to before `high` their colours."""
        while low < high and types[low] == ground:
            low += 1
        while low < high and types[high - 1] == ground:
            high -= 1
        if low == high:
            return ()
        colour = types[low]
        ends = [end for end in range(low + 1, high + 1) if types[end - 1] == colour]
        found = [((low, end, colour), *painted(low, end, colour), *painted(end, high, ground)) for end in ends]
        return min(found, key=len)

    bases = sorted(dict.fromkeys(types), key=lambda name: (-list(types).count(name), name))
    base = min(bases, key=lambda name: len(painted(0, len(types), name)))
    return LayerTypes(
        base=base,
        rules=tuple(
            LayerRule(where="layers", low=low, high=end - 1, type=colour)
            for low, end, colour in painted(0, len(types), base)
        ),
    )


def setting(k: Sequence[str], v: Sequence[str]) -> CacheTypes:
    """The setting for these types of each layer."""
    return CacheTypes(k=shortest(k), v=shortest(v))
