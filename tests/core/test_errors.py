"""Exit codes are distinct and documented."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from toolchain.core.exit_codes import all_errors, exit_code_table

REFERENCE = Path(__file__).parents[2] / "docs/reference/exit-codes.md"


def test_codes_are_distinct_and_leave_the_shells_own_alone() -> None:
    codes = Counter(cls.exit_code for cls in all_errors())
    assert max(codes.values()) == 1
    assert min(codes) > 2
    assert max(codes) < 126


def test_every_error_says_what_it_means() -> None:
    assert all((cls.__doc__ or "").endswith(".") for cls in all_errors())


def test_the_reference_has_the_table() -> None:
    assert exit_code_table() in REFERENCE.read_text()
