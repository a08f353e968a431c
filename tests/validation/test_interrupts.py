"""A sample of `tests.validation.interrupts` on the double: an interrupted validation is resumed to the same result."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest

from tests.validation import interrupts, small_trial


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[interrupts.Bench, Any]:
    """The bench, and the outcome of an undisturbed validation."""
    found = interrupts.double(tmp_path_factory.mktemp("interrupts").resolve())
    workspace = found.workspace("undisturbed")
    assert interrupts.complete(found, workspace) == ""
    assert interrupts.left(workspace) == ""
    expected = interrupts.outcome(workspace)
    assert len(expected) == 1 + 2 * small_trial.QUESTIONS
    return found, expected


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize("number", interrupts.SIGNALS, ids=lambda one: one.name)
def test_an_interrupted_validation_is_resumed_to_the_same_result(
    number: signal.Signals, bench: tuple[interrupts.Bench, Any]
) -> None:
    rng = random.Random(number)
    after, wait_s = rng.randrange(1, 2 * small_trial.QUESTIONS - 1), rng.uniform(0, 0.05)
    assert interrupts.interrupted(bench[0], number.name, number, after, wait_s, bench[1]) == ""


@pytest.mark.slow
def test_a_difference_is_noticed(bench: tuple[interrupts.Bench, Any]) -> None:
    found, expected = bench
    other = next(iter(expected))
    changed = {**expected, other: "another"}
    workspace = found.folder / "undisturbed"
    assert interrupts.outcome(workspace) == expected != changed
    cell = interrupts.cells(workspace)[0]
    text = cell.read_text()
    cell.write_text(text.replace('"text": "', '"text": "!', 1))
    assert interrupts.outcome(workspace) != expected
    cell.write_text(text)
    (workspace / "validations" / "x" / "home").mkdir(parents=True)
    assert "home" in interrupts.left(workspace)
    (workspace / "validations" / "x" / "home").rmdir()
