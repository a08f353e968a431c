"""The choice of types by itself: against all choices, one by one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from toolchain.core.cachetypes import grammar
from toolchain.validation.tuning import knapsack, rules
from toolchain.validation.tuning.knapsack import Option, TooLarge, choose

OPTIONS = some.lists(some.builds(Option, bytes=some.integers(1, 12), loss=some.floats(0, 5)), min_size=1, max_size=4)
GROUPS = some.lists(OPTIONS, min_size=1, max_size=5)


def _brute(groups: list[list[Option]], room: int) -> float | None:
    fitting = [
        sum(one.loss for one in taken)
        for taken in itertools.product(*groups)
        if sum(one.bytes for one in taken) <= room
    ]
    return min(fitting, default=None)


@settings(max_examples=120, deadline=None)
@given(groups=GROUPS, room=some.integers(0, 60))
def test_the_optimum_is_that_of_all_choices(groups: list[list[Option]], room: int) -> None:
    best = _brute(groups, room)
    if best is None:
        with pytest.raises(TooLarge):
            choose(groups, room)
        return
    found = choose(groups, room)
    assert found.optimal
    assert found.loss == pytest.approx(best, abs=1e-9)
    assert found.bound == pytest.approx(best, abs=1e-9)
    taken = [group[at] for group, at in zip(groups, found.options, strict=True)]
    assert found.bytes == sum(one.bytes for one in taken) <= room
    assert found.loss == pytest.approx(sum(one.loss for one in taken))


@settings(max_examples=60, deadline=None)
@given(groups=GROUPS, room=some.integers(5, 60))
def test_where_choices_are_dropped_the_bound_still_holds(groups: list[list[Option]], room: int) -> None:
    best = _brute(groups, room)
    if best is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knapsack, "MOST", 1)
        found = choose(groups, room)
    assert found.bound - 1e-9 <= best <= found.loss + 1e-9
    assert found.bytes <= room
    assert not found.optimal or found.loss == pytest.approx(best, abs=1e-9)


def test_a_model_of_62_layers_is_chosen_for_exactly() -> None:
    """Two kinds of layers, as with a sliding window; 49 options each; the dual's bound is just below."""
    row = {"f16": 4096, "q8_0": 2176, "q5_1": 1536, "q5_0": 1408, "turbo4": 1088, "turbo3": 832, "turbo2": 576}
    noise = {"f16": 0.0, "q8_0": 0.002, "q5_1": 0.02, "q5_0": 0.03, "turbo4": 0.1, "turbo3": 0.35, "turbo2": 1.0}
    groups = [
        [
            Option(
                bytes=(row[k] + row[v]) * (131072 if layer % 6 == 5 else 1536),
                loss=(1 + (layer * 7919 % 31) / 5) * noise[k] / 100 + (1 + (layer * 104729 % 17) / 9) * noise[v] / 900,
            )
            for k in row
            for v in row
        ]
        for layer in range(62)
    ]
    room = sum(group[24].bytes for group in groups)
    found = choose(groups, room)
    _, _, bound = knapsack.dual(groups, room)
    assert found.optimal
    assert found.bytes <= room
    assert bound <= found.loss <= bound * 1.01


def _fewest(types: tuple[str, ...]) -> int:
    """Rules that are needed, by trying all settings of up to so many rules."""
    spans = [(low, high) for low in range(len(types)) for high in range(low, len(types))]
    for count in range(len(types) + 1):
        for base in set(types):
            for strokes in itertools.product(itertools.product(spans, set(types)), repeat=count):
                row = [base] * len(types)
                for (low, high), name in strokes:
                    row[low : high + 1] = [name] * (high + 1 - low)
                if tuple(row) == types:
                    return count
    raise AssertionError


@settings(max_examples=40, deadline=None)
@given(types=some.lists(some.sampled_from(("f16", "q8_0", "turbo4")), min_size=1, max_size=5).map(tuple))
def test_rules_are_the_fewest_and_are_read_back(types: tuple[str, ...]) -> None:
    found = rules.setting(types, types[::-1])
    again = grammar.parse(str(found))
    assert (again.k.each(len(types)), again.v.each(len(types))) == (types, types[::-1])
    assert len(found.k.rules) == _fewest(types)


def test_one_rule_may_lie_over_another() -> None:
    types = ["turbo3"] * 3 + ["q8_0"] * 2 + ["turbo4"] + ["q8_0"] * 2 + ["turbo3"] * 4
    assert str(rules.shortest(types)) == "turbo3,layers=3-7:q8_0,layers=5:turbo4"
