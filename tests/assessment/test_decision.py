"""The rules of the decision, each by itself and over all that can come together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.upstream.assessment.decision import BUILD_MINUTES, PATHS, Decision, Facts, ForkFacts, SeriesFacts, decide

FORK = ForkFacts(
    branch="turbo",
    age="fresh",
    days=5,
    turbo=True,
    merge_minutes=0,
    stop=(),
    patches_on_fork=(),
    patches_on_merge=(),
    metal=True,
    api_breaking=False,
)
SERIES = SeriesFacts(ok=True, failing=0, reason="", metal=True)
FACTS = Facts(
    fork=FORK,
    series=SERIES,
    mac=True,
    exact_pin=True,
    pin="b10488",
    fresh_days=14,
    stale_days=28,
    conflict_box=15,
    build_box=120,
)


def _with(*, series: dict[str, Any] | None = None, fork: dict[str, Any] | None = None, **facts: Any) -> Decision:
    changed = replace(FACTS, series=replace(SERIES, **(series or {})), fork=replace(FORK, **(fork or {})))
    return decide(replace(changed, **facts))


@pytest.mark.parametrize(
    ("fork", "decision", "said"),
    [
        ({}, "build the fork", "is fresh"),
        ({"age": "stale", "days": 20}, "cherry-pick", "without a conflict"),
        ({"age": "stale", "days": 20, "merge_minutes": 10}, "cherry-pick", "about 10 min of conflicts"),
        ({"age": "stale", "days": 20, "merge_minutes": 16}, "our series", "about 16 min of conflicts, 15 are allowed"),
        ({"age": "very stale", "days": 40}, "our series", "the limit is 28"),
        ({"stop": ("Metal",), "merge_minutes": 10}, "our series", "conflicts in Metal"),
        ({"merge_minutes": 40}, "our series", "counts as very stale"),
        ({"api_breaking": True}, "cherry-pick", "it lacks symbols that Ollama uses"),
        ({"patches_on_fork": ("001.patch",)}, "cherry-pick", "001.patch would not apply"),
        ({"patches_on_fork": ("1",), "patches_on_merge": ("1",)}, "our series", "would no longer apply"),
        ({"metal": False}, "our series", "no Metal kernels"),
        ({"turbo": False}, "our series", "about TurboQuant"),
        ({"age": "unrelated"}, "our series", "shares no commit"),
    ],
)
def test_the_path_of_a_fork(fork: dict[str, Any], decision: str, said: str) -> None:
    taken = _with(fork=fork)
    assert taken.decision == decision
    assert said in " ".join(taken.reasons)


def test_an_ollama_that_contains_its_llama_cpp_takes_no_fork() -> None:
    taken = _with(contained=True)
    assert taken.decision == "our series"
    assert "contains its llama.cpp" in " ".join(taken.reasons)


@pytest.mark.parametrize(
    ("series", "mac", "decision"),
    [
        ({}, True, "our series"),
        ({"ok": False, "failing": 1}, True, "our series"),
        ({"ok": False, "failing": 2}, True, "wait"),
        ({"ok": False, "reason": "of the vendored era"}, False, "wait"),
        ({"metal": False}, True, "MLX"),
        ({"metal": False}, False, "our series"),
        ({"ok": False, "failing": 9, "metal": False}, True, "MLX"),
    ],
)
def test_the_paths_without_a_fork(series: dict[str, Any], mac: bool, decision: str) -> None:
    taken = decide(replace(FACTS, fork=None, mac=mac, series=replace(SERIES, **series)))
    assert taken.decision == decision
    assert "not build the fork: no fork was named" in taken.reasons


def test_mlx_says_what_it_needs_and_costs() -> None:
    reasons = " ".join(_with(fork={"metal": False}, series={"metal": False}).reasons)
    for word in ("Apple silicon", "safetensors", "OLLAMA_KV_CACHE_TYPE"):
        assert word in reasons


def test_time_boxes_name_the_next_path() -> None:
    taken = _with(fork={"age": "stale", "days": 20, "merge_minutes": 4})
    assert taken.next == "our series"
    assert "15 min of conflicts or 120 min of failing builds end it, then: our series" in taken.reasons[-1]
    minutes = {path.path: path.minutes for path in taken.paths}
    assert minutes["cherry-pick"] == 4 + BUILD_MINUTES


@pytest.mark.parametrize(
    ("change", "confidence"),
    [
        ({}, "high"),
        ({"exact_pin": False}, "medium"),
        ({"fork": {"days": 13}}, "medium"),
        ({"fork": {"days": 13}, "exact_pin": False}, "low"),
        ({"fork": {"api_breaking": None}}, "medium"),
        ({"fork": {"age": "stale", "days": 20, "merge_minutes": 9}}, "medium"),
    ],
)
def test_confidence(change: dict[str, Any], confidence: str) -> None:
    assert _with(**change).confidence == confidence


_forks = st.builds(
    ForkFacts,
    branch=st.just("b"),
    age=st.sampled_from(["fresh", "stale", "very stale", "unrelated"]),
    days=st.floats(0, 400),
    turbo=st.booleans(),
    merge_minutes=st.one_of(st.floats(0, 30), st.just(float("inf"))),
    stop=st.sampled_from([(), ("Metal",), ("core KV cache", "Metal")]),
    patches_on_fork=st.sampled_from([(), ("001",)]),
    patches_on_merge=st.sampled_from([(), ("001",)]),
    metal=st.booleans(),
    api_breaking=st.sampled_from([True, False, None]),
)
_series = st.builds(
    SeriesFacts, ok=st.booleans(), failing=st.integers(0, 5), reason=st.sampled_from(["", "why"]), metal=st.booleans()
)


@given(fork=st.one_of(st.none(), _forks), series=_series, mac=st.booleans(), exact=st.booleans())
def test_no_rule_is_broken(fork: ForkFacts | None, series: SeriesFacts, mac: bool, exact: bool) -> None:
    taken = decide(replace(FACTS, fork=fork, series=series, mac=mac, exact_pin=exact))
    assert [path.path for path in taken.paths] == list(PATHS)
    assert next(path for path in taken.paths if path.open).path == taken.decision
    assert all(path.reasons for path in taken.paths)
    if taken.decision in ("build the fork", "cherry-pick"):
        assert fork is not None
        assert fork.turbo
        assert not fork.stop
        assert fork.merge_minutes <= 15
        assert fork.metal or not mac
        assert fork.age == "fresh" or (fork.age == "stale" and taken.decision == "cherry-pick")
    if taken.decision == "build the fork":
        assert fork is not None
        assert not fork.api_breaking
    if taken.decision == "our series":
        assert series.metal or not mac
        assert series.ok or 0 < series.failing <= 1
    if taken.decision == "MLX":
        assert mac
        assert not series.metal
