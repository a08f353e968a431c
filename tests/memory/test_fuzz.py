"""A few hundred of the damaged headers that `fuzz_headers` makes; a person runs more of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from . import fuzz_headers


@pytest.mark.parametrize("first", [0, 10_000, 20_000])
def test_damaged_headers_end_in_expected_errors_alone(first: int, tmp_path: Path) -> None:
    """Anything else than an error of the toolkit fails the test, with the number of the case."""
    path, outcomes = tmp_path / "m.gguf", Counter[str]()
    for number in range(first + 1, first + 101):
        path.write_bytes(fuzz_headers.case(number))
        try:
            outcomes[fuzz_headers.read_by_all(path)] += 1
        except Exception as error:
            error.add_note(f"case {number}: python -m tests.memory.fuzz_headers --first {number} --cases 1")
            raise
    assert outcomes[""] > 10
    assert outcomes["ModelInvalid"] > 40


def test_a_case_is_always_the_same() -> None:
    assert [fuzz_headers.case(number) for number in (3, 4)] == [fuzz_headers.case(number) for number in (3, 4)]
    assert fuzz_headers.case(3) != fuzz_headers.case(4)
