"""The search for the largest context, on servers that take memory for each token."""

from __future__ import annotations

import dataclasses
import os

import pytest

from tests.validation.conftest import MakePlan, MakeTrial
from toolchain.core.errors import ModelLoadFailed
from toolchain.host import footprint
from toolchain.validation.trials import ceiling
from toolchain.validation.trials.ceiling import Attempt, Outcome

MIB = 1 << 20


class Small:
    """A machine that comes under pressure when this process's children take more than some MiB."""

    def __init__(self, mib: int) -> None:
        self._bytes = mib * MIB
        self.before = set(footprint.family(os.getpid()))  # this process, and children of other tests

    def reason(self) -> str:
        taken = footprint.total(
            one
            for pid in footprint.family(os.getpid())
            if pid not in self.before and (one := footprint._single(pid)) is not None
        )
        return "too small" if taken and taken.bytes > self._bytes else ""


@pytest.mark.slow
def test_pressure_kills_the_server_and_ends_the_search_below(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    """A server whose 4096 tokens take 512 MiB, on a machine with less."""
    plan = dataclasses.replace(make_plan(), environment={"TQ_TEST_PER_TOKEN": str(MIB // 8)})
    small = Small(220)
    trial = dataclasses.replace(make_trial(plan), pressure=small)
    found = ceiling.measure(trial)
    assert found.verdict == "failed"
    assert found.figures[0].candidate == 1024
    outcomes = {row[1]: row[2] for row in found.tables[0].rows if row[0] == "candidate"}
    assert outcomes["4096"] == "memory pressure"
    assert outcomes["1024"] == "fits"
    assert set(footprint.family(os.getpid())) <= small.before  # nothing is left of the servers


def test_the_models_own_context_is_the_ceiling_where_it_fits(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    found = ceiling.measure(make_trial(make_plan()))
    assert (found.verdict, found.summary) == (
        "passed",
        "4096 tokens, the model's own context; the baseline reaches 4096",
    )


def test_a_server_that_never_starts_is_no_matter_of_the_context(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    plan = dataclasses.replace(make_plan(), environment={"TQ_TEST_ALLOCATE": "not a number"})
    trial = make_trial(plan)
    with pytest.raises(ModelLoadFailed):
        ceiling.measure(trial)
    assert list(trial.store.keys()) == []


@pytest.mark.parametrize(
    ("limit", "planned"), [(131072, 9), (70000, 50000), (40000, 131072), (20000, 20480), (900, 65536), (0, 0)]
)
def test_the_search_ends_just_below_the_limit(limit: int, planned: int) -> None:
    tried: list[int] = []

    def attempt(context: int) -> Attempt:
        tried.append(context)
        outcome: Outcome = "fits" if context <= limit else "failed"
        return Attempt(planned=None, outcome=outcome, why="", peak=0)  # type: ignore[arg-type]

    found = ceiling._search(131072, planned, attempt)
    assert found.ceiling <= limit
    assert limit - found.ceiling < 131072 // 32 + 1024
    assert len(tried) <= 9
    assert len(tried) == len(set(tried))
