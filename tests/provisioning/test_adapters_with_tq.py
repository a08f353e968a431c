"""The tools with the real tq over launchd's emulator: the beginning of what `real_semantics` goes through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .real_semantics import STEPS, Managed

pytestmark = [pytest.mark.slow, pytest.mark.sampled(0)]


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Managed]:
    made = Managed(tmp_path)
    yield made
    made.mac.close()


def test_a_mac_that_three_tools_manage_one_after_the_other(managed: Managed) -> None:
    absent, installed, drifted = STEPS[:3]
    absent.do(managed)
    assert managed.observe("munki") == absent.munki
    assert managed.observe("attribute").partition(";")[0] == installed.attribute
    drifted.do(managed)
    assert managed.observe("kandji") == drifted.kandji
    assert managed.observe("jamf") == installed.jamf
