from __future__ import annotations

import time

import pytest

from toolchain.core.deadline import Deadline
from toolchain.core.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain  text", "plain  text"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07here", "here"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1$r\x1b\\x", "x"),
        ("\x1bcreset", "reset"),
        ("a\r\nb\tc\x00d\x7f", "a  b c d"),
        ("user\u202etxt.exe", "user txt.exe"),
        ("half \ud800", "half"),
        ("\xe9\u4e2d", "\xe9\u4e2d"),
        ("\x1b[", ""),
        ("\x1b]never ended", ""),
    ],
)
def test_what_is_left_of_a_text(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_a_long_text_is_cut() -> None:
    assert printable("x" * 20, 20) == "x" * 20
    assert printable("x" * 21, 20) == "x" * 19 + "\u2026"
    started = time.monotonic()
    assert len(printable("\x1b]" * 5_000_000 + "x")) <= 500
    assert time.monotonic() - started < 2


def test_a_deadline_is_shared() -> None:
    deadline = Deadline(0.05)
    assert deadline.within(60) is deadline
    assert deadline.within(0.001).left <= 0.001
    assert not deadline.passed
    time.sleep(0.06)
    assert deadline.passed
    assert deadline.left == 0
