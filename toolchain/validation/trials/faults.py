"""Mechanical faults of an answer: what no reader has to judge. What the limit of tokens cut off is no fault."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence

from .conversation import Turn

_LOOP = re.compile(r"(.{8,200}?)\1{3,}", re.DOTALL)
"""a passage of 8 characters or more, four times in a row; one without a letter is a line of a table"""
_FENCE = re.compile(r"^\s*```", re.MULTILINE)
_JSON = re.compile(r"^\s*```json\s*\n(.*?)^\s*```", re.MULTILINE | re.DOTALL)
_SAME = 24
"""characters from which on the same answer again is a fault"""
_FOREIGN = 0.2
"""share of letters of another script than Latin"""


def faults(turns: Sequence[Turn], at: int) -> tuple[str, ...]:
    """The faults of a turn's answer."""
    turn = turns[at]
    text = turn.answer.strip()
    if not text:
        return ("empty",)
    ended = turn.stop != "limit"
    passages = _LOOP.finditer(re.sub(r"\s+", " ", text))
    found = ["loop"] if any(letter.isalpha() for one in passages for letter in one.group(1)) else []
    found += ["repeated"] if len(text) >= _SAME and any(text == one.answer.strip() for one in turns[:at]) else []
    found += ["fence"] if ended and len(_FENCE.findall(text)) % 2 else []
    found += ["json"] if ended and _broken_json(text) else []
    found += ["language"] if _foreign(text) > _FOREIGN else []
    return tuple(found)


def _broken_json(text: str) -> bool:
    """Whether a block that says to be JSON, or an answer that begins like an object, is none."""
    parts = _JSON.findall(text) or ([text] if re.match(r'\{\s*"|\[\s*\{', text) else [])
    for part in parts:
        try:
            json.loads(part)
        except ValueError:
            return True
    return False


def _foreign(text: str) -> float:
    letters = [one for one in text if one.isalpha()]
    others = [one for one in letters if not unicodedata.name(one, "").startswith("LATIN")]
    return len(others) / len(letters) if len(letters) >= 10 else 0.0
