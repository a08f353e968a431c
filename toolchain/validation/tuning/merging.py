"""Settings with few rules: neighbouring layers of one type, where that costs next to nothing.

Viterbi's algorithm finds the types of least loss + price x bytes + toll x changes from layer to layer. The price of a
byte is bisected until the choice fits; a higher toll gives fewer rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .knapsack import Option
from .room import Pair

_TOLLS = 16
_STEPS = 30
Doubles = npt.NDArray[np.float64]


def merged(
    pairs: Sequence[Sequence[Pair]], options: Sequence[Sequence[Option]], room: int, loss: float
) -> Iterator[tuple[int, ...]]:
    """Choices within the bytes, of ever fewer changes; `loss` is the optimum's."""
    k, v = (np.array([getattr(one, side) for one in pairs[0]]) for side in ("k", "v"))
    changes = (k[:, None] != k[None]).astype(float) + (v[:, None] != v[None])
    losses = np.array([[one.loss for one in group] for group in options])
    sizes = np.array([[one.bytes for one in group] for group in options], dtype=np.float64)
    rows = np.arange(len(options))
    for step in range(_TOLLS):
        toll = loss / len(options) * 2.0 ** (step / 2 - 6)
        low, high = 0.0, loss / max(room, 1) * 1e4
        found = None
        for _ in range(_STEPS):
            price = (low * high) ** 0.5 if low else high / 1e6
            taken = _cheapest(losses + price * sizes, toll * changes)
            if sizes[rows, taken].sum() <= room:
                high, found = price, taken
            else:
                low = price
        if found is not None:
            yield tuple(int(at) for at in found)


def _cheapest(costs: Doubles, changes: Doubles) -> npt.NDArray[np.int64]:
    """The option of each layer on the cheapest path."""
    total, came = costs[0], []
    for row in costs[1:]:
        sums = total[:, None] + changes
        came.append(np.argmin(sums, axis=0))
        total = sums.min(axis=0) + row
    path = [int(np.argmin(total))]
    for back in reversed(came):
        path.append(int(back[path[-1]]))
    return np.array(path[::-1])
