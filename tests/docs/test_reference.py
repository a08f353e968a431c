"""The reference has every task, flag, setting, exit code and record, as the code has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolchain.core.config import Config, rows
from toolchain.core.exit_codes import all_errors

from .reference import REFERENCE, all_tasks, flags, parts, renewed

_RENEW = "run: .venv/bin/python -m tests.docs.reference"


@pytest.mark.parametrize("page", sorted(REFERENCE.glob("*.md")), ids=lambda page: page.name)
def test_what_is_generated_is_as_the_code_has_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert renewed(text) == text, _RENEW


def test_every_task_has_a_section_with_its_flags_and_what_it_prints() -> None:
    text = (REFERENCE / "tasks.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE))
    assert sorted(sections) == sorted(all_tasks())
    for name, task in all_tasks().items():
        assert f"<!-- generated: flags {name} -->" in sections[name]
        assert re.search(r"^JSON: ", sections[name], re.MULTILINE), name
        for flag in flags(task):
            assert f"`{flag}`" in sections[name]


def test_every_setting_is_described() -> None:
    described = "".join(parts((REFERENCE / "settings.md").read_text(encoding="utf-8")).values())
    assert [row.key for row in rows(Config()) if f"| `{row.key}` |" not in described] == []


def test_a_part_that_is_out_of_date_is_seen() -> None:
    stale = "<!-- generated: settings fork -->\n| `fork.gone` |\n<!-- end -->\n"
    fresh = renewed(stale)
    assert fresh != stale
    assert "`fork.fresh_days`" in fresh
    assert renewed(fresh) == fresh
    with pytest.raises(KeyError):
        renewed("<!-- generated: settings nowhere -->\n<!-- end -->\n")


def test_the_remedies_are_for_codes_that_there_are() -> None:
    page = REFERENCE.parent / "how-to/when-something-fails.md"
    named = re.findall(r"^\| ([\d, ]+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    codes = {int(code) for cell in named for code in cell.split(",")}
    assert codes
    assert codes <= {error.exit_code for error in all_errors()}
