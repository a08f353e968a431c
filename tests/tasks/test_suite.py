"""The command line of the suite, and that slow tests are marked."""

from __future__ import annotations

import pytest

from tests.core import test_process
from tests.rehearsal import test_rehearsal as test_rehearse
from toolchain.core.errors import ConfigError
from toolchain.tasks import suite


def test_arguments_are_split_as_a_shell_does() -> None:
    words = suite.command_line(fast=False, sweeps=False, args="""tests/surface -k "one or 'another one'" --lf""")
    assert words[1:4] == ["-P", "-m", "pytest"]
    assert words[-4:] == ["tests/surface", "-k", "one or 'another one'", "--lf"]
    assert "not slow" not in words


def test_fast_leaves_out_what_is_slow_and_arguments_win() -> None:
    words = suite.command_line(fast=True, sweeps=True, args="-m slow")
    assert words[-5:] == ["-m", "not slow", "--sweeps", "-m", "slow"]


def test_an_open_quotation_mark_is_no_traceback() -> None:
    with pytest.raises(ConfigError, match="No closing quotation"):
        suite.command_line(fast=False, sweeps=False, args="-k 'one")


def test_what_takes_long_is_marked() -> None:
    assert test_rehearse.pytestmark.name == "slow"
    assert not hasattr(test_process, "pytestmark")
