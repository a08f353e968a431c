"""Tables of measurements out of pages of results, with the page's own words on the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import ConfigError
from ..core.records import read_bytes, record

_LARGEST = 4 << 20
_MACHINE = re.compile(r"^\*\*Machine\*\*: *(.+?)(?=\n\s*\n|\n\*\*|\Z)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\|.*\|[ \t]*$")
_RULE = re.compile(r"^\|[ \t:|-]+\|[ \t]*$")


@record
class MeasuredTable:
    """A table, as the page has it."""

    page: str
    """name of the file"""
    title: str
    """of the page, and of the section"""
    machine: str
    """as the page states it; empty if it does not"""
    text: str
    """in Markdown"""


def tables_of(page: Path) -> tuple[MeasuredTable, ...]:
    """The tables of a Markdown page. Raises `ConfigError` for a page that cannot be read, or that has none."""
    try:
        text = read_bytes(page, limit=_LARGEST).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--results: {page}: {error}", hint="name a page as docs/results/quality.md") from error
    machine = _MACHINE.search(text)
    stated = " ".join(machine[1].split()) if machine else ""
    found = tuple(
        MeasuredTable(page=page.name, title=title, machine=stated, text="\n".join(rows))
        for title, rows in _tables(text.splitlines())
    )
    if not found:
        raise ConfigError(f"--results: {page} has no table", hint="name a page as docs/results/quality.md")
    return found


def _tables(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Tables with the headings above them, in order."""
    headings: dict[int, str] = {}
    rows: list[str] = []
    for line in [*lines, ""]:
        if _ROW.match(line):
            rows.append(line.rstrip())
            continue
        if len(rows) > 1 and _RULE.match(rows[1]):
            yield ": ".join(headings.values()), rows
        rows = []
        if found := re.match(r"(#{1,6}) +(.+)", line):
            depth = len(found[1])
            headings = {level: title for level, title in headings.items() if level < depth} | {depth: found[2].strip()}
