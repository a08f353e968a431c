"""The list of what no Mac has confirmed is whole, and the page on the emulator has every entry of it."""

from __future__ import annotations

import re
from pathlib import Path

from toolchain.service.emulator.unconfirmed import BEHAVIOURS

PAGE = Path(__file__).parents[2] / "docs/explanation/emulator.md"


def test_the_page_states_what_the_list_states() -> None:
    section = PAGE.read_text().partition("## Unconfirmed\n")[2].partition("\n## ")[0]
    stated = [" ".join(entry.split()) for entry in re.findall(r"^- ((?:.+\n)(?:  .+\n)*)", section, re.MULTILINE)]
    assert stated == [f"**{one.id}**: {one.statement}" for one in BEHAVIOURS]


def test_each_has_an_id_of_its_own_and_whole_sentences() -> None:
    assert len({one.id for one in BEHAVIOURS}) == len(BEHAVIOURS) > 0
    for one in BEHAVIOURS:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", one.id)
        assert one.statement.endswith(".")
        assert one.test.endswith(".")
