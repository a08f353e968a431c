"""What halts a rollout."""

from __future__ import annotations

from typing import Any

import pytest

from toolchain.fleet.outcome import HostResult
from toolchain.fleet.rules import Rules, canaries_missing, most, nobody_reached, seconds, verdict


def wave(text: str, number: int = 1) -> list[HostResult]:
    """Hosts by the first letters of their outcomes; =: unchanged; g, s, m: failed with other errors."""
    outcomes: dict[str, dict[str, Any]] = {
        "w": {"outcome": "waiting"}, "i": {"outcome": "in-flight"}, "c": {"outcome": "changed"},
        "=": {"outcome": "unchanged"}, "f": {"outcome": "failed", "error": "one", "message": "F"},
        "g": {"outcome": "failed", "error": "other", "message": "G"}, "u": {"outcome": "unreachable"},
        "r": {"outcome": "rejected"}, "s": {"outcome": "failed", "error": "slow", "message": "3 tokens/s"},
        "m": {"outcome": "failed", "error": "moved", "message": "another"},
    }  # fmt: skip
    return [HostResult(name=f"h{index}", wave=number, **outcomes[one]) for index, one in enumerate(text)]


@pytest.mark.parametrize(
    ("hosts", "rules", "why"),
    [
        ("cww", {}, ""),
        ("fww", {}, "canary h0 failed: F"),
        ("fww", {"max_failures": 3}, "canary h0 failed: F"),
        ("ufw", {"max_failures": 3}, "canary h1 failed: F"),  # who was not reached is no canary
        ("cfw", {}, "h1 failed, and 0 of 3 may: F"),
        ("cfw", {"max_failures": 1}, ""),
        ("cfgw", {"max_failures": 1}, "h1, h2 failed, and 1 of 4 may: G"),
        ("cfgw", {"max_failures": "50%"}, ""),
        ("cffw", {"max_failures": "50%"}, "the same error on 2 hosts: one"),
        ("cffw", {"max_failures": "50%", "halt_on_same_error": False}, ""),
        ("csw", {"max_failures": 3}, "h1: under the floor of tokens per second: 3 tokens/s"),
        ("cmw", {"max_failures": 3}, "h1: another"),
        ("uuc", {}, ""),
        ("uuc", {"max_unreachable": 1}, "h0, h1 unreachable, and 1 of 3 may be"),
        ("uuc", {"max_unreachable": "0%"}, "h0, h1 unreachable, and 0 of 3 may be"),
        ("rcw", {}, ""),
        ("fcc", {"canary": 0, "max_failures": 1}, ""),
    ],
)
def test_a_wave_is_judged(hosts: str, rules: dict[str, Any], why: str) -> None:
    assert verdict(Rules(**rules), wave(hosts), wave(hosts)) == why


def test_an_error_counts_in_all_waves() -> None:
    before, present = wave("cf", 1), wave("cf", 2)
    rules = Rules(max_failures=1)
    assert verdict(rules, present, before + present) == "the same error on 2 hosts: one"
    assert verdict(rules, wave("cg", 2), before + wave("cg", 2)) == ""
    assert verdict(rules, wave("cc", 3), before + wave("cf", 2) + wave("cc", 3)) == ""


@pytest.mark.parametrize(
    ("hosts", "canary", "missing"),
    [
        ("www", 1, 1),
        ("cww", 1, 0),
        ("=ww", 1, 0),
        ("uww", 1, 1),
        ("uuw", 2, 1),
        ("uuu", 1, 0),
        ("cww", 2, 1),
        ("w", 5, 1),
    ],
)
def test_canaries_come_first(hosts: str, canary: int, missing: int) -> None:
    assert canaries_missing(Rules(canary=canary), wave(hosts)) == missing


def test_a_wave_of_which_nobody_was_reached() -> None:
    assert nobody_reached(wave("uru"))
    assert not nobody_reached(wave("uc"))
    assert not nobody_reached(wave("uf"))


def test_bounds_and_durations() -> None:
    assert [most(bound, 10) for bound in (0, 3, "0%", "25%", "100%")] == [0, 3, 0, 2, 10]
    assert [seconds(one) for one in ("10s", "5m", "1.5h", "250ms", 3)] == [10, 300, 5400, 0.25, 3]
