"""Entering a human's verdicts: from a list, or pair by pair on a terminal, without saying which side is which."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from ..core import records
from ..core.errors import ConfigError
from ..core.printable import printable
from . import gate, leftovers, pages
from .judgement import Judgement, Word, judged
from .matrix import TESTS
from .result import Pair, Report
from .trials.prompts import NAME

_USAGE = "--verdicts 1=same,2=worse,3=better"
_RULE = "-" * 100


def parse(given: Sequence[str], pairs: Sequence[Pair]) -> dict[str, Word]:
    """Verdicts by the keys of pairs, out of texts such as 2=worse. Raises `ConfigError` for any other."""
    found = dict[str, Word]()
    keys = [one.key for one in pairs]
    for text in given:
        key, _, verdict = text.partition("=")
        if key not in keys:
            raise ConfigError(f"--verdicts {text!r}: there is no pair {key!r}", hint=f"pairs: {', '.join(keys)}")
        if verdict not in get_args(Word):
            raise ConfigError(f"--verdicts {text!r}: expected {', '.join(get_args(Word))}", hint=_USAGE)
        if found.get(key, verdict) != verdict:
            raise ConfigError(f"--verdicts: {key} is given twice", hint=_USAGE)
        found[key] = cast(Word, verdict)
    return found


def pairs(report: Report) -> tuple[Pair, ...]:
    """The pairs to judge. Raises `ConfigError` when the validation has none."""
    result = report.result(NAME)
    if result is None or not result.pairs:
        raise ConfigError(f"{report.id} has no answers to judge", hint=f"./inv validate --tests {NAME}")
    return result.pairs


def enter(file: Path, verdicts: Mapping[str, Word], who: str) -> Report:
    """Keep verdicts on the pairs of the report in `file`, and judge it and the gate anew; nothing is measured.

    Raises `RecordError`, `DiskFull`, and `LockHeld` while the validation runs.
    """
    folder = file.parent
    with leftovers.locked(folder):
        report = records.read(file, Report)
        judgement = Judgement.read(folder)
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        for one in pairs(report):
            if verdict := verdicts.get(one.key):
                judgement = judgement.entered(one, verdict, who=who, when=when)
        judgement.write(folder)
        results = tuple(judged(one, judgement) if one.test == NAME else one for one in report.results)
        decision = gate.decide(results, report.plan) if report.complete else report.decision
        report = replace(report, results=results, decision=decision)
        records.write(file, report)
        pages.render(report, folder, tuple(TESTS))
        return report


def interview(
    open_pairs: Sequence[Pair],
    *,
    show: Callable[[str], None],
    answer: Callable[[str], str],
    rng: random.Random,
) -> Iterator[tuple[str, Word]]:
    """The verdicts that a human gives on pairs without one, each as it comes. The sides are A and B by chance.

    `answer` puts a question, and returns the line that was entered; the end of the input or q ends the interview.
    """
    for number, pair in enumerate(open_pairs, 1):
        turned = rng.random() < 0.5
        first, second = (pair.candidate, pair.baseline) if turned else (pair.baseline, pair.candidate)
        show(f"{_RULE}\n{number} of {len(open_pairs)}: {pair.title}\n\n{_clean(pair.prompt)}")
        show(f"{'- A ':-<100}\n{_clean(first)}\n{'- B ':-<100}\n{_clean(second)}\n{_RULE}")
        while True:
            try:
                given = answer("Which one is better? a, b, s (as good as the other), q (stop): ").strip().lower()
            except EOFError:
                return
            if given == "q":
                return
            if given in ("a", "b", "s"):
                break
        candidate = "a" if turned else "b"
        yield pair.key, "same" if given == "s" else "better" if given == candidate else "worse"


def _clean(text: str) -> str:
    """Nothing in an answer of a model may steer the terminal; code keeps its indentation."""
    lines = ((len(line) - len(line.lstrip(" ")), line) for line in text.splitlines())
    return "\n".join(f"{' ' * indent}{printable(line, len(line) + 1)}" for indent, line in lines)
