"""Memory of servers that take a given amount, against the planner."""

from __future__ import annotations

import dataclasses
import os

import pytest

from tests.validation.calm import calmly
from tests.validation.conftest import MakePlan, MakeTrial
from toolchain.host import footprint
from toolchain.validation.planned import Planner
from toolchain.validation.trials import memory

MIB = 1 << 20


@pytest.mark.parametrize("backend", ["llama-server", "ollama"])
def test_memory_within_the_plan_passes(backend: str, make_plan: MakePlan, make_trial: MakeTrial) -> None:
    trial = calmly(make_trial(make_plan(backend=backend, contexts=[512])))
    found = memory.measure(trial)
    assert found.verdict == "passed", found
    assert [one.name for one in found.figures if one.ok is not True] == []
    again = calmly(make_trial(trial.plan))
    assert memory.measure(again) == found
    assert again.store.taken == 0


def test_memory_beyond_the_plan_lowers_the_ceiling(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    plan = dataclasses.replace(make_plan(contexts=[512]), environment={"TQ_TEST_ALLOCATE": "180"})
    found = memory.measure(calmly(make_trial(plan)))
    assert found.verdict == "failed"
    assert "of the plan at 512: the ceiling drops from 4096 to " in found.summary
    peak = next(one for one in found.figures if one.name == "peak at 512")
    assert peak.candidate
    assert peak.candidate > 180


def test_a_cache_of_other_bytes_than_planned_is_broken(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    planner = Planner(make_trial(make_plan()))
    line = "llama_kv_cache: size = 1.00 MiB ( 512 cells, 4 layers, 1/1 seqs), K (turbo4): {} MiB, V (turbo4): 0.07 MiB"
    assert planner.contradiction("candidate", 512, line.format("0.07")) == ""
    assert "K: 0.066 MiB planned, the log states 0.08" in planner.contradiction("candidate", 512, line.format("0.08"))
    assert "512 cells of 4 layers planned" in planner.contradiction(
        "candidate", 512, line.format("0.07").replace("512 cells", "256 cells")
    )
    assert "1 caches planned, the log states 0" in planner.contradiction("candidate", 512, "nothing")


def test_a_process_that_takes_memory_shows_it() -> None:
    before = footprint.of(os.getpid())
    ballast = bytearray(64 * MIB)
    ballast[::4096] = b"x" * len(ballast[::4096])
    after = footprint.of(os.getpid())
    assert before
    assert after
    assert after.bytes - before.bytes > 60 * MIB
    assert after.peak >= after.bytes - 4 * MIB
    assert footprint.of(2**22 + 1) is None
