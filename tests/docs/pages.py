"""The Markdown pages of the repository: their links, their headings, and the anchors that GitHub makes of these."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_CODE = re.compile(r"(`+)(?:(?!\1).)+\1")


def pages(root: Path = ROOT) -> list[Path]:
    """Every page that a reader may open. The pages of the miniature upstream belong to its source tree."""
    folders = ("docs", "patches", ".github")
    return sorted([*root.glob("*.md"), *(page for folder in folders for page in (root / folder).rglob("*.md"))])


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers, from 1, and lines outside fenced code."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
        elif not fence:
            yield number, line


def links(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers and targets of the links and pictures of a page; code is not looked at."""
    for number, line in prose(text):
        for match in _LINK.finditer(_CODE.sub("", line)):
            yield number, match[1]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    seen: Counter[str] = Counter()
    found = set()
    for _, line in prose(text):
        heading = _HEADING.match(line)
        if not heading:
            continue
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "")
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def broken(page: Path) -> list[str]:
    """Links of a page within the repository that lead nowhere, as `file:line: target`."""
    text = page.read_text(encoding="utf-8")
    found = []
    for number, target in links(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        wrong = not there.exists() or (anchor and anchor not in anchors(there.read_text(encoding="utf-8")))
        if wrong:
            found.append(f"{page.name}:{number}: {target}")
    return found
