"""An entry for a release in a changelog of the form of this project's: a section for each month, newest first."""

from __future__ import annotations

import re
import textwrap
from datetime import datetime
from pathlib import Path

from ..core.errors import ConfigError, reason
from ..core.records import read_bytes, write_bytes

_WIDTH = 120


def prepend(file: Path, release: str, created: str, text: str) -> None:
    """Add the entry of a release, or replace the one that is there. Raises `ConfigError` for an unusable file."""
    try:
        before = read_bytes(file).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--changelog: {file}: {reason(error)}", hint="name a Markdown file that exists, as CHANGELOG.md"
        ) from error
    after = with_entry(before, release, created, text)
    if after != before:
        write_bytes(file, after.encode(), mode=file.stat().st_mode & 0o777)


def with_entry(changelog: str, release: str, created: str, text: str) -> str:
    """The changelog with the entry. `created` is in ISO 8601 and chooses the section."""
    head = f"- **Release {release}**"
    entry = textwrap.fill(
        f"{head}: {text}", _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    there = re.compile(rf"^{re.escape(head)}:.*(?:\n[ \t]+\S.*)*$", re.MULTILINE)
    if there.search(changelog):
        return there.sub(lambda _: entry, changelog, count=1)
    month = f"## {datetime.fromisoformat(created):%B %Y}"
    section = re.search(rf"^{month}[ \t]*\n+", changelog, re.MULTILINE)
    if section:
        below = changelog[section.end() :]
        gap = "\n" * below.startswith((" ", "\t"))  # or it would be a part of the entry
        return f"{changelog[: section.start()]}{month}\n\n{entry}\n{gap}{below}"
    first = re.search(r"^## ", changelog, re.MULTILINE)
    at = first.start() if first else len(changelog)
    above = changelog[:at].rstrip("\n")
    below = f"\n{changelog[at:]}" if first else ""
    return f"{above}\n\n{month}\n\n{entry}\n{below}".lstrip("\n")
