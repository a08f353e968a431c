"""Jobs at once, and those that never end."""

from __future__ import annotations

import threading

import pytest

from toolchain.fleet.crew import Crew, Overdue


def test_a_job_that_never_ends_is_given_up_and_its_late_end_ignored() -> None:
    crew, go, late = Crew(2), threading.Event(), threading.Event()

    def hang() -> None:
        go.wait(60)
        late.set()

    crew.start("hangs", hang, 0.05)
    crew.start("works", lambda: None, 60)
    assert crew.full
    ends = {}
    while crew.running:
        if ended := crew.ended(10):
            ends[ended[0]] = ended[1]
    assert ends["works"] is None
    assert isinstance(ends["hangs"], Overdue)
    crew.start("hangs", lambda: None, 60)  # the same name again
    go.set()
    assert late.wait(10)
    assert crew.ended(10) == ("hangs", None)
    assert crew.ended(0.05) is None


def test_what_a_job_raises_is_handed_on() -> None:
    crew = Crew(1)

    def fails() -> None:
        raise ValueError("a bug")

    crew.start("one", fails, 60)
    ended = crew.ended(10)
    assert ended is not None
    with pytest.raises(ValueError, match="a bug"):
        raise ended[1] or AssertionError
