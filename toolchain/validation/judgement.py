"""A human's verdicts on pairs of answers: kept beside the answers that they were given on, and judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Literal

from ..core.records import read, record, sha256_bytes, write
from .result import Figure, Pair, TestResult, Verdict

FILE = "judgement.json"
Word = Literal["same", "worse", "better"]
ALLOWED_WORSE = 10
"""one of so many answers may be worse"""
_NAME = "answers that a human finds no worse"


@record
class Entered:
    """A verdict on a pair, with the digest of the two answers that were seen."""

    verdict: Word
    answers_sha256: str
    who: str
    when: str
    """UTC, ISO 8601"""


@record
class Judgement:
    """judgement.json of a validation: the verdicts by the pairs' keys. It outlives `--again`."""

    verdicts: Mapping[str, Entered] = field(default_factory=dict)

    @staticmethod
    def read(folder: Path) -> Judgement:
        """What was entered for a validation; nothing without a file. Raises `RecordError` for a damaged one."""
        path = folder / FILE
        return read(path, Judgement) if path.is_file() else Judgement()

    def write(self, folder: Path) -> None:
        """Keep it. Raises `DiskFull`."""
        write(folder / FILE, self)

    def entered(self, pair: Pair, verdict: Word, *, who: str, when: str) -> Judgement:
        """With a verdict on this pair."""
        one = Entered(verdict=verdict, answers_sha256=digest(pair), who=who, when=when)
        return Judgement(verdicts={**self.verdicts, pair.key: one})

    def of(self, pair: Pair) -> Word | Literal[""]:
        """The verdict on these very answers; equal answers need none."""
        if pair.baseline == pair.candidate:
            return "same"
        found = self.verdicts.get(pair.key)
        return found.verdict if found and found.answers_sha256 == digest(pair) else ""


def digest(pair: Pair) -> str:
    """SHA-256 of what a human compares."""
    return sha256_bytes(f"{pair.prompt}\0{pair.baseline}\0{pair.candidate}".encode())


def judged(result: TestResult, judgement: Judgement) -> TestResult:
    """A test with the verdicts on its pairs, judged by them: one of ten may be worse."""
    pairs = tuple(replace(one, verdict=judgement.of(one)) for one in result.pairs)
    worse = sum(one.verdict == "worse" for one in pairs)
    missing = [one.key for one in pairs if not one.verdict]
    good, needed = len(pairs) - worse - len(missing), len(pairs) - len(pairs) // ALLOWED_WORSE
    equal = sum(one.baseline == one.candidate for one in pairs)
    verdict: Verdict = "passed" if good >= needed else "failed" if worse > len(pairs) - needed else "undecided"
    counted = f"{good} of {len(pairs)} no worse" + (f", {equal} of them word for word the same" if equal else "")
    summary = counted + (f", {worse} worse" if worse else "")
    if missing:
        summary += f"; no verdict on {', '.join(missing)} yet"
    figure = Figure(
        name=_NAME,
        candidate=float(good),
        unit=f"of {len(pairs)}",
        limit=f"at least {needed}",
        ok={"passed": True, "failed": False}.get(verdict),
    )
    rest = tuple(one for one in result.figures if one.name != _NAME)
    return replace(result, verdict=verdict, summary=summary, figures=(figure, *rest), pairs=pairs)
