"""The matrix on f16 against f16, with other seeds: `python -m tests.validation.noise --model M [--runs 10] [--help]`.

Nothing but noise is between the sides, so nothing may fail: each run's decision and verdicts are printed, then how
often each came, and for each figure its range over the runs and how often it missed its limit. A run is kept like any
validation: the same command goes on after an interruption. Ends with the number of runs in which a test failed, killed
or was void, or whose figure missed a limit; a missing verdict of a human is none of these.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence

from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.errors import ToolchainError
from toolchain.core.run import Run
from toolchain.models.memory.planning import tokens
from toolchain.text import as_text
from toolchain.validation import validation
from toolchain.validation.matrix import TESTS
from toolchain.validation.result import Report

FALSE = ("failed", "kill", "broken")
"""verdicts that noise must not cause"""


def strayed(report: Report) -> list[str]:
    """What noise alone caused: tests that did not pass, void ones, and figures beyond their limits."""
    found = [f"{one.test} {one.verdict}: {one.summary}" for one in report.results if one.verdict in FALSE]
    found += [f"{one.test} void: {why}" for one in report.results for why in one.voids]
    found += [
        f"{one.test}: {figure.name} {figure.candidate} ({figure.limit})"
        for one in report.results
        for figure in one.figures
        if figure.ok is False
    ]
    return found


def summary(reports: Sequence[Report]) -> str:
    """How often each decision and verdict came, and the range of each figure's candidate over the runs."""
    lines = [f"decisions: {_counted(Counter(one.decision.answer for one in reports))}"]
    results = [result for report in reports for result in report.results]
    for test in dict.fromkeys(one.test for one in results):
        of = [one for one in results if one.test == test]
        lines.append(f"{test}: {_counted(Counter(one.verdict for one in of))}, {sum(one.seconds for one in of):.0f} s")
        values, missed, limits = defaultdict[str, list[float]](list), Counter[str](), dict[str, str]()
        for figure in (figure for one in of for figure in one.figures):
            missed[figure.name] += figure.ok is False
            limits[figure.name] = figure.limit
            if figure.candidate is not None:
                values[figure.name].append(figure.candidate)
        for name, seen in values.items():
            limit = f" ({limits[name]}: missed {missed[name]} of {len(seen)})" if limits[name] else ""
            lines.append(f"  {name}: {min(seen):.4g} to {max(seen):.4g}, median {statistics.median(seen):.4g}{limit}")
    return "\n".join(lines)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in counts.most_common())


def say(line: str) -> None:
    """A line of the report, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--type", default="f16", help="of both sides")
    parser.add_argument("--tests", default=",".join(TESTS))
    parser.add_argument("--contexts", default="", help="as in 2K,8K")
    parser.add_argument("--against", default="llama-server")
    parser.add_argument("--release", default="")
    parser.add_argument("--set", action="append", default=[], help="a setting, as for ./inv")
    given = parser.parse_args(words)
    settings = dict(one.split("=", 1) for one in given.set)
    run = Run(config=load(flags=settings), console=Console(as_text=as_text))
    reports: list[Report] = []
    failures = 0
    for seed in range(given.first_seed, given.first_seed + given.runs):
        try:
            plan = validation.make_plan(
                run,
                model=given.model,
                candidate=given.type,
                baseline=given.type,
                tests=given.tests.split(","),
                contexts=[tokens(one, "--contexts") for one in given.contexts.split(",") if one],
                backend=given.against,
                release=given.release,
                seed=seed,
            )
            report = validation.validate(run, plan)
        except ToolchainError as error:
            say(f"seed {seed}: {type(error).__name__}: {error}")
            failures += 1
            continue
        reports.append(report)
        wrong = strayed(report)
        failures += bool(wrong)
        say(f"seed {seed}: {report.decision.answer}" + "".join(f"\n  {one}" for one in wrong))
    if reports:
        say(summary(reports))
    say(f"{failures} of {given.runs} runs strayed")
    return failures


if __name__ == "__main__":
    sys.exit(min(main(), 100))
