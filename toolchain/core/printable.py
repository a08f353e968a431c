"""Text of other programs, made fit for a terminal, a log or JSON."""

from __future__ import annotations

import re

MOST_CHARACTERS = 500
_SLACK = 8
"""how much longer than its result a text may be that is looked at: escapes and blanks fall away"""
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # strings: titles, links
    r"|\x1b[ -/]*[0-~]?"
)


def printable(text: str, most: int = MOST_CHARACTERS) -> str:
    """One line of at most `most` characters, without escape sequences and other control characters.

    Also gone: what turns the direction of writing, invisible characters, and halves of surrogate pairs.
    """
    kept = _ESCAPE.sub("", text[: most * _SLACK])
    line = "".join(letter if letter.isprintable() else " " for letter in kept).strip()
    return line if len(line) <= most and len(text) <= most * _SLACK else f"{line[: most - 1]}…"
