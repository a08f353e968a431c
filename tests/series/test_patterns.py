"""The regular expressions of a series."""

from __future__ import annotations

import re

import pytest

from toolchain.core import bounds
from toolchain.core.errors import SeriesError
from toolchain.series import patterns


def test_matches_come_in_order() -> None:
    assert [match[1] for match in patterns.matches("here", r"^k(\d)", "k1\nk2", re.MULTILINE)] == ["1", "2"]


@pytest.mark.parametrize("pattern", ["(", "a{99999999999999}", "(" * 5000 + ")" * 5000, "(?P<a>x)(?P<a>y)"])
def test_what_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(SeriesError, match=r"^fact id: pattern"):
        patterns.check("fact id", pattern)


def test_a_fact_needs_a_group() -> None:
    patterns.check("fact id", "(a)", groups=1)
    with pytest.raises(SeriesError, match="has no group"):
        patterns.check("fact id", "a", groups=1)


def test_a_search_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 0.2)
    with pytest.raises(SeriesError, match=r"^fact id: pattern '\(a\+\)\+\$': takes more than 0\.2 s"):
        patterns.matches("fact id", "(a+)+$", "a" * 60 + "b")
