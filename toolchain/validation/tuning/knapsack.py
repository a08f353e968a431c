"""The choice of one option from each group that loses least within a number of bytes: a multiple-choice knapsack.

First the Lagrangian dual: with a price for a byte each group takes its own best option, and the price is bisected. That
gives a lower bound of the loss, and a choice within the bytes. Then dynamic programming over the groups finds the
optimum: it keeps the choices of the first groups that no other beats in both bytes and loss (Nemhauser and Ullmann,
1969), without those that the bound proves to be worse than the choice in hand. So it is exact, and few are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...core.records import record

MOST = 200_000
"""partial choices that are kept; beyond, the result may not be the optimum, and `bound` says by how much"""
_STEPS = 100


@record
class Option:
    """One option of a group."""

    bytes: int
    loss: float


@record
class Choice:
    """An option of each group, by its index. `bound`: no choice within the bytes loses less; `optimal`: it is exact."""

    options: tuple[int, ...]
    bytes: int
    loss: float
    bound: float
    optimal: bool


class TooLarge(ValueError):
    """Even the smallest options exceed the bytes."""


def choose(groups: Sequence[Sequence[Option]], room: int) -> Choice:
    """The choice of least loss within `room` bytes. Raises `TooLarge` when there is none."""
    if sum(min(one.bytes for one in group) for group in groups) > room:
        raise TooLarge
    taken, price, bound = dual(groups, room)
    loss = _loss(groups, taken)
    exact, complete = _states(groups, room, price, loss)
    if exact is not None and _loss(groups, exact) < loss:
        taken, loss = exact, _loss(groups, exact)
    return Choice(
        options=tuple(taken),
        bytes=sum(group[at].bytes for group, at in zip(groups, taken, strict=True)),
        loss=loss,
        bound=loss if complete else min(bound, loss),
        optimal=complete,
    )


def dual(groups: Sequence[Sequence[Option]], room: int) -> tuple[list[int], float, float]:
    """A choice within the bytes, the best price of a byte (loss per byte), and the lower bound that it proves."""
    low, high = 0.0, 1.0
    while not _fits(groups, _best(groups, high), room):
        high *= 4
    if _fits(groups, _best(groups, low), room):
        taken = _best(groups, low)
        return taken, low, _loss(groups, taken)
    best, price, bound = _best(groups, high), high, 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        taken = _best(groups, middle)
        bytes_, loss = sum(group[at].bytes for group, at in zip(groups, taken, strict=True)), _loss(groups, taken)
        if loss + middle * (bytes_ - room) > bound:
            bound, price = loss + middle * (bytes_ - room), middle
        if bytes_ <= room:
            high, best = middle, taken if loss < _loss(groups, best) else best
        else:
            low = middle
    return best, price, bound


def _best(groups: Sequence[Sequence[Option]], price: float) -> list[int]:
    """Each group's cheapest option at a price; the smaller one of two."""
    return [
        min(range(len(group)), key=lambda at: (group[at].loss + price * group[at].bytes, group[at].bytes))
        for group in groups
    ]


def _fits(groups: Sequence[Sequence[Option]], taken: Sequence[int], room: int) -> bool:
    return sum(group[at].bytes for group, at in zip(groups, taken, strict=True)) <= room


def _loss(groups: Sequence[Sequence[Option]], taken: Sequence[int]) -> float:
    return sum(group[at].loss for group, at in zip(groups, taken, strict=True))


def _states(groups: Sequence[Sequence[Option]], room: int, price: float, best: float) -> tuple[list[int] | None, bool]:
    """The best choice of all states that the bound leaves, None if none; and whether no other state was dropped."""
    cheapest = [min(one.loss + price * one.bytes for one in group) for group in groups]
    smallest = [min(one.bytes for one in group) for group in groups]
    bytes_, losses = np.zeros(1, dtype=np.int64), np.zeros(1)
    trail: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    complete, slack = True, 1e-12 + 1e-9 * best
    for at, group in enumerate(groups):
        held = len(bytes_)
        sizes = (bytes_[:, None] + np.array([one.bytes for one in group], dtype=np.int64)[None]).ravel()
        sums = (losses[:, None] + np.array([one.loss for one in group])[None]).ravel()
        rest_bytes, rest = sum(smallest[at + 1 :]), sum(cheapest[at + 1 :])
        bounds = sums + price * sizes + rest - price * room
        order = np.flatnonzero((sizes + rest_bytes <= room) & (bounds <= best + slack))
        order = order[np.lexsort((sums[order], sizes[order]))]
        if order.size == 0:
            return None, complete
        lowest = np.minimum.accumulate(sums[order])
        front = order[np.concatenate([[True], sums[order][1:] < lowest[:-1]])]
        if len(front) > MOST:
            front = np.sort(front[np.argsort(bounds[front], kind="stable")[:MOST]])
            complete = False
        trail.append((front // len(group), front % len(group)))
        assert held <= MOST
        bytes_, losses = sizes[front], sums[front]
    state, taken = int(np.argmin(losses)), []
    for parents, options in reversed(trail):
        taken.append(int(options[state]))
        state = int(parents[state])
    return taken[::-1], complete
