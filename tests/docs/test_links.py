"""Links between pages resolve, and so do the pages that the code names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .pages import ROOT, anchors, broken, links, pages, prose


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_anchor_resolves(page: Path) -> None:
    assert broken(page) == []


def test_every_page_of_the_docs_is_reached_from_the_readme() -> None:
    todo, seen = [ROOT / "README.md"], {ROOT / "README.md"}
    while todo:
        page = todo.pop()
        for _, target in links(page.read_text(encoding="utf-8")):
            there = (page.parent / target.partition("#")[0]).resolve()
            if there.suffix == ".md" and there.is_file() and there not in seen:
                seen.add(there)
                todo.append(there)
    assert sorted(set((ROOT / "docs").rglob("*.md")) - seen) == []


def test_every_page_that_the_code_names_is_there() -> None:
    folders = ("toolchain", "templates", "patches", ".github", ".ci", "bench")
    files = [*ROOT.glob("*.py"), ROOT / "inv", *(file for folder in folders for file in (ROOT / folder).rglob("*"))]
    wrong = []
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            named = re.findall(r"\bdocs/[\w./-]+\.md\b", file.read_text(encoding="utf-8", errors="replace"))
            wrong += [f"{file.relative_to(ROOT)}: {page}" for page in named if not (ROOT / page).is_file()]
    assert wrong == []


def test_every_path_that_a_page_names_is_there() -> None:
    wrong = []
    for page in pages():
        for number, line in prose(page.read_text(encoding="utf-8")):
            for path in re.findall(r"`((?:toolchain|tests|bench|patches|templates|docs)/[\w./-]+)`", line):
                if not (ROOT / path).exists():
                    wrong.append(f"{page.relative_to(ROOT)}:{number}: {path}")
    assert wrong == []


def test_every_room_is_in_the_table_of_rooms() -> None:
    table = (ROOT / "docs/explanation/design.md").read_text(encoding="utf-8")
    rooms = [room.parent.name for room in sorted((ROOT / "toolchain").glob("*/__init__.py"))]
    missing = [room for room in rooms if not re.search(rf"^\| .*`toolchain/{room}/", table, re.MULTILINE)]
    assert missing == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One `two`, three\n## Again\n## Again\n```\n# not a heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[good](other.md#one-two-three) [good](other.md#again-1) [away](https://example.org/x) `[code](gone.md)`\n"
        "```\n[code](gone.md)\n```\n[bad](gone.md) [bad](other.md#not-a-heading)\n"
    )
    assert broken(page) == ["page.md:5: gone.md", "page.md:5: other.md#not-a-heading"]
    assert anchors("# `turbo4`: 4.25 bits, and why\n") == {"turbo4-425-bits-and-why"}
