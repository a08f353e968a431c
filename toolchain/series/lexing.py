"""Separates code from comments and strings, for the languages that the series edits.

Every function keeps offsets: a masked text has the length of the original and the same line breaks, so a match
in it is a match in the file.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Literal

Language = Literal["c", "go", "cmake", "text"]

_SUFFIXES: dict[str, Language] = {
    ".go": "go",
    ".cmake": "cmake",
    **dict.fromkeys((".c", ".h", ".cc", ".cpp", ".hpp", ".m", ".mm", ".metal", ".cu", ".cuh"), "c"),
}

# Comments first: a quote inside a comment opens nothing, and the leftmost alternative wins at each offset.
_C_COMMENT = r"//[^\n]*|/\*.*?\*/"
_C_RAW = r'R"(?P<tag>[^()\\\s]{0,16})\(.*?\)(?P=tag)"'
_C_QUOTED = r'"(?:\\.|[^"\\\n])*"|(?<![0-9A-Za-z_])\'(?:\\.|[^\'\\\n])*\''
_GO_QUOTED = r'"(?:\\.|[^"\\\n])*"|`[^`]*`|\'(?:\\.|[^\'\\\n])*\''
_CMAKE_COMMENT = r"#\[\[.*?\]\]|#[^\n]*"
_CMAKE_QUOTED = r'"(?:\\.|[^"\\])*"'

_TOKENS: dict[Language, re.Pattern[str]] = {
    "c": re.compile(f"(?P<comment>{_C_COMMENT})|(?P<string>{_C_RAW}|{_C_QUOTED})", re.DOTALL),
    "go": re.compile(f"(?P<comment>{_C_COMMENT})|(?P<string>{_GO_QUOTED})", re.DOTALL),
    "cmake": re.compile(f"(?P<comment>{_CMAKE_COMMENT})|(?P<string>{_CMAKE_QUOTED})", re.DOTALL),
}
_NOT_NEWLINE = re.compile(r"[^\n]")


def language_of(path: str) -> Language:
    """The language of a file by its name; `text` when nothing is masked."""
    pure = PurePosixPath(path)
    return "cmake" if pure.name == "CMakeLists.txt" else _SUFFIXES.get(pure.suffix, "text")


@lru_cache(maxsize=512)
def mask(text: str, language: Language, *, strings: bool) -> str:
    """`text` with comments, and the strings too if `strings` is set, replaced by blanks of the same length."""
    if language == "text":
        return text

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        if match.lastgroup == "string" or match.group("comment") is None:
            # the quotes stay, so that a masked argument still looks like an argument
            return found[0] + _NOT_NEWLINE.sub(" ", found[1:-1]) + found[-1] if strings else found
        return _NOT_NEWLINE.sub(" ", found)

    return _TOKENS[language].sub(blank, text)
