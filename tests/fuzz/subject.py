"""A subject of fuzzing: how its cases are made, and what of the toolkit reads them.

A case is a file, the same for the same number. A reader does everything that the toolkit does with such a file, and may
end with one of the toolkit's errors alone, within seconds, without much memory, and without a trace outside the case's
folder. `tests/fuzz/test_fuzz.py` has a few hundred cases; `python -m tests.fuzz` runs as many as wanted.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.core.errors import ToolchainError

SLOW_S, HANGS_S, MOST_MB = 2.0, 60.0, 500
CANARY = "canary"
_NUMBERS = (0, -1, 1, 63, 64, 255, 4096, (1 << 31) - 1, 1 << 31, 1 << 53, (1 << 63) - 1, 1 << 64, 10**40)
_TEXTS = (
    *(
        "",
        "0",
        "-",
        "..",
        "../../outside/canary",
        "../escaped",
        "/",
        "/dev/zero",
        "~nobody-at-all",
        "a\0b",
        "a\nb",
        "\r",
    ),
    *(
        "\u2028",
        "\u202e",
        "\ud800",
        "\x1b[2J",
        "{{ 1 }}",
        "%s%n",
        ".inf",
        "9" * 5000,
        "x" * 70_000,
        "(" * 500,
        "a/" * 3000,
    ),
    *("2026-13-45T99:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+23:59", "con", "A" * 300),
)
_BYTES = (
    b"\0",
    b"\n",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b'"',
    b"{",
    b"[" * 3000,
    b"}",
    b"9" * 5000,
    b"\x80" * 9,
    b"%",
    b"<",
)


@dataclass(frozen=True)
class Subject:
    """Something that reads files of others. `read` returns the name of the expected error, or nothing."""

    make: Callable[[random.Random], bytes]
    read: Callable[[Path], None]
    name: str = "case"
    """of the file"""
    alone: tuple[type[Exception], ...] = field(default=(ToolchainError,))
    """expected errors"""

    def case(self, number: int) -> bytes:
        """The file of this number."""
        return self.make(random.Random(number))


class Place:
    """A folder for cases, and what must stay as it is around it."""

    def __init__(self, root: Path) -> None:
        self.inside, self._outside, self._root = root / "inside", root / "outside", root
        for folder in (self.inside, self._outside, root / "here"):
            folder.mkdir(parents=True)
        (self._outside / CANARY).write_text(CANARY)
        self._before = self._seen()

    def read(self, subject: Subject, data: bytes) -> str:
        """The name of the expected error that a case ends in, or nothing. Raises the other ones."""
        shutil.rmtree(self.inside)
        self.inside.mkdir()
        path = self.inside / subject.name
        path.write_bytes(data)
        outcome = ""
        with contextlib.chdir(self._root / "here"):
            try:
                subject.read(path)
            except subject.alone as error:
                str(error).encode(errors="surrogateescape")
                outcome = type(error).__name__
        if (now := self._seen()) != self._before:
            self._before = now
            raise AssertionError(f"outside of the case's folder there is now: {sorted(now)}")
        return outcome

    def _seen(self) -> dict[str, int]:
        """What is outside, with its time."""
        found = dict[str, int]()
        for folder in (self._root, self._outside, self._root / "here"):
            found |= {entry.path: entry.stat(follow_symlinks=False).st_mtime_ns for entry in os.scandir(folder)}
        return {path: when for path, when in found.items() if path != str(self.inside)}


def findings(
    subject: Subject, numbers: Sequence[int], place: Place, outcomes: dict[str, int], *, timed: bool = True
) -> Iterator[str]:
    """What is wrong, a line each, with the number that makes the case again; `timed` ends at one that hangs."""
    for number in numbers:
        data = subject.case(number)
        if timed:
            faulthandler.dump_traceback_later(HANGS_S, exit=True)
        begun = time.monotonic()
        try:
            outcome = place.read(subject, data) or "read"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        except Exception as error:
            last = [one for one in traceback.extract_tb(error.__traceback__) if "toolchain" in one.filename][-1:]
            where = f"{Path(last[0].filename).name}:{last[0].lineno}" if last else "the reader"
            yield f"{number}: {type(error).__name__} at {where}: {str(error)[:300]!r}"
        if timed and (took := time.monotonic() - begun) > SLOW_S:
            yield f"{number}: {took:.1f} s"
    if timed:
        faulthandler.cancel_dump_traceback_later()


def summary(name: str, cases: int, begun: float, found: int, outcomes: Mapping[str, int]) -> tuple[str, int]:
    """A line on a longer run that began at `begun` (time.monotonic), and its exit code: 1 for findings or too much
    memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    seconds = time.monotonic() - begun
    line = f"{name}: {cases} cases, {seconds:.0f} s, {peak:.0f} MB, {found} findings, {dict(outcomes)}\n"
    return line, int(found > 0 or peak > MOST_MB)


# -- damage ----------------------------------------------------------------------------------------


def damaged(data: bytes, dice: random.Random, words: Sequence[bytes] = ()) -> bytes:
    """The bytes with one to four odd places; `words` are put in as well."""
    whole = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(whole) + 1)
        size = dice.choice((1, 1, 4, 8, 100))
        match dice.randrange(5):
            case 0:
                whole[at : at + 1] = bytes((dice.randrange(256),))
            case 1:
                del whole[at : at + size]
            case 2:
                whole[at:at] = whole[at : at + dice.choice((8, 100, 1000))] * dice.choice((1, 1, 50))
            case 3:
                whole[at : at + dice.choice((0, size))] = dice.choice((*words, *_BYTES))
            case 4 if dice.random() < 0.3:
                del whole[at:]
    return bytes(whole)


def odd(value: Any, dice: random.Random, words: Sequence[Any] = (), deepest: int = 60) -> Any:
    """Plain data with one to three odd values in it, each of any type or a hostile text; `words` as well.

    `deepest` is what the writer of a format can nest.
    """
    value = json.loads(json.dumps(value))
    for _ in range(dice.randint(1, 3)):
        holder, key = _place(value, dice)
        if holder is None:
            return _odd_value(value, dice, words, deepest)
        if isinstance(holder, dict) and dice.random() < 0.25:
            taken = holder.pop(key)
            if dice.random() < 0.5:
                holder[dice.choice(_TEXTS)] = taken
        elif dice.random() < 0.1:
            holder[key] = _many(holder[key], dice)
        else:
            holder[key] = _odd_value(holder[key], dice, words, deepest)
    return value


def _place(value: Any, dice: random.Random) -> tuple[Any, Any]:
    places = list(_places(value))
    return dice.choice(places) if places else (None, None)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(part, dict | list):
            yield from _places(part)


def _many(value: Any, dice: random.Random) -> Any:
    return [value] * dice.choice((0, 2, 100))


def _odd_value(before: Any, dice: random.Random, words: Sequence[Any], deepest: int) -> Any:
    if isinstance(before, str) and dice.random() < 0.6:
        return dice.choice(dice.choice((_TEXTS, [one for one in words if isinstance(one, str)] or _TEXTS)))
    if isinstance(before, int) and dice.random() < 0.6:
        return dice.choice(_NUMBERS)
    nested: Any = dice.choice(_TEXTS)
    for _ in range(dice.choice((1, deepest // 2, deepest))):
        nested = [nested] if dice.random() < 0.5 else {"a": nested}
    return dice.choice(
        (
            dice.choice(_NUMBERS),
            dice.choice(_TEXTS),
            dice.choice(words or _TEXTS),
            dice.choice((None, True, False, 0.5, -1e308, float("inf"), float("nan"))),
            dice.choice(([], {}, [[]], {"": ""}, ["a"] * 1000)),
            nested,
        )
    )


def as_json(value: Any) -> bytes:
    """JSON with all that Python's encoder lets through: NaN, halves of surrogate pairs."""
    return json.dumps(value).encode()
