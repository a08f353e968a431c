"""A few cases of each subject; a person runs more of them: `python -W error -m tests.fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .subject import Place, Subject, findings
from .subjects import SUBJECTS

COUNTS = {
    "trees": 2,
    "series": 12,
    "settings": 20,
    "plists": 20,
    "logs": 15,
    "validation": 15,
    "statements": 15,
    "fleet": 15,
}
"""so that all of them take a few seconds; `tests/kernels` has the blocks"""


@pytest.mark.parametrize("name", sorted(SUBJECTS.keys() - {"blocks"}))
def test_damaged_input_ends_in_expected_errors_alone(name: str, tmp_path: Path) -> None:
    outcomes = dict[str, int]()
    found = list(findings(SUBJECTS[name], range(COUNTS.get(name, 30)), Place(tmp_path), outcomes, timed=False))
    assert found == []
    assert sum(outcomes.values()) == COUNTS.get(name, 30)


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_case_is_always_the_same(name: str) -> None:
    subject = SUBJECTS[name]
    assert [subject.case(number) for number in (3, 4)] == [subject.case(number) for number in (3, 4)]
    assert subject.case(3) != subject.case(4)


def test_what_is_written_outside_is_found(tmp_path: Path) -> None:
    subject = Subject(make=lambda dice: b"", read=lambda path: (path.parent / "../outside/new").touch())
    assert "outside of the case's folder" in "".join(findings(subject, [0], Place(tmp_path), {}))


def test_an_unexpected_error_is_found(tmp_path: Path) -> None:
    subject = Subject(make=lambda dice: b"", read=lambda path: dict[str, None]()["missing"])
    (found,) = findings(subject, [7], Place(tmp_path), {})
    assert found.startswith("7: KeyError")
