"""Automatic checks of an answer: does it end, repeat itself, parse, hold what was asked for. Nothing is executed.

A check is a word with arguments, as in "json name age":

    python NAME...     a code block that parses, and defines these
    json KEY...        an object with exactly these keys
    number N           the number occurs, and is the last one
    contains TEXT      in any case
    without TEXT       the opposite
    words LEAST MOST   length
    bullets N MOST     exactly N lines, each "- " and at most MOST words
    language CODE      en or de, by the words that hold a sentence together

Each answer is checked for being there, for its end and for repetitions, too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Sequence

import msgspec

_FENCED = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_NUMBER = re.compile(r"(?<![\d.,])\d+(?:,\d{3})*(?![\d]|[.,]\d)")
_ENGLISH = "the a an and of to in is are was that it for on with as by this not you be or have"
_GERMAN = "der die das und von zu in ist sind war dass es für auf mit als ein eine nicht im den dem"
_WORDS = {"en": frozenset(_ENGLISH.split()), "de": frozenset(_GERMAN.split())}
_LEAST_SHARE = 0.12
"""of all words, that hold a sentence of the language together"""
_REPEATS = 4
_LEAST_REPEATED = 40
"""characters, that repetitions take up at least"""


def failures(checks: Iterable[str], answer: str, *, stop: str) -> tuple[str, ...]:
    """The checks that an answer fails. `stop` is that of `endpoint.Generated`."""
    if stop == "repeats":
        return ("repeats itself",)
    if not answer.strip():
        return ("empty",)
    found = ["does not end"] if stop == "limit" else []
    found += ["repeats itself"] if loops(answer) else []
    for check in checks:
        name, *arguments = check.split()
        if not CHECKS[name](answer, arguments):
            found.append(check)
    return tuple(found)


def loops(text: str) -> bool:
    """Whether a text ends in repetitions: one passage, four times and more, over at least 40 characters."""
    end = " ".join(text.split())[-2000:]
    for size in range(1, len(end) // _REPEATS + 1):
        passage = end[-size:]
        times = max(_REPEATS, -(-_LEAST_REPEATED // size))
        if end.endswith(passage * times) and passage.strip(" -|=*_.#"):  # a ruled line is none
            return True
    return False


def _python(answer: str, names: Sequence[str]) -> bool:
    blocks = _FENCED.findall(answer) or [answer]
    for block in blocks:
        try:
            tree = ast.parse(block)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        defined = {one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.ClassDef)}
        defined |= {one.id for one in ast.walk(tree) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
        if set(names) <= defined:
            return True
    return False


def _json(answer: str, keys: Sequence[str]) -> bool:
    fenced = _FENCED.search(answer)
    said = fenced[1] if fenced else answer[answer.find("{") : answer.rfind("}") + 1]
    try:
        found = msgspec.json.decode(said)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(found, dict) and set(found) == set(keys)


def _number(answer: str, arguments: Sequence[str]) -> bool:
    told = [one.replace(",", "") for one in _NUMBER.findall(answer)]
    return bool(told) and told[-1] == arguments[0]


def _contains(answer: str, arguments: Sequence[str]) -> bool:
    return " ".join(arguments).lower() in answer.lower()


def _without(answer: str, arguments: Sequence[str]) -> bool:
    return not _contains(answer, arguments)


def _words(answer: str, arguments: Sequence[str]) -> bool:
    least, most = map(int, arguments)
    return least <= len(answer.split()) <= most


def _bullets(answer: str, arguments: Sequence[str]) -> bool:
    number, most = map(int, arguments)
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    return len(lines) == number and all(line.startswith("- ") and len(line.split()) <= most + 1 for line in lines)


def _language(answer: str, arguments: Sequence[str]) -> bool:
    said = re.findall(r"[^\W\d_]+", answer.lower())
    shares = {code: sum(word in words for word in said) / max(len(said), 1) for code, words in _WORDS.items()}
    wanted = shares[arguments[0]]
    return wanted >= _LEAST_SHARE and wanted == max(shares.values())


CHECKS: dict[str, Callable[[str, Sequence[str]], bool]] = {
    "python": _python,
    "json": _json,
    "number": _number,
    "contains": _contains,
    "without": _without,
    "words": _words,
    "bullets": _bullets,
    "language": _language,
}
