"""How a report's numbers, commands and texts are written, the same at a terminal, on a page and in Markdown."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar

from ..core.variables import masked
from ..models.quality.samples import TEXT
from .plan import Plan
from .result import Figure, Report

T = TypeVar("T")

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""characters that are not seen, or that turn the direction of writing"""
_MARKUP = re.compile(r"([\\`*\[\]|~$])|(?<!\w)_|_(?!\w)")


def number(value: float | None) -> str:
    """A number in four digits, whole ones in full; "-" for none, nan and inf as they are."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def difference(value: float | None) -> str:
    """A number with its sign."""
    return f"+{number(value)}" if value is not None and value > 0 else number(value)


def error(value: float | None) -> str:
    """A standard error, as it stands behind its figure; empty for none."""
    return "" if value is None else f"± {value:.2g}" if math.isfinite(value) else "± unknown"


def judged(figure: Figure) -> str:
    """Whether a figure meets its limit; empty without a limit."""
    return {True: "met", False: "missed", None: ""}[figure.ok]


def command(plan: Plan) -> str:
    """The command that repeats a validation, for a shell. Variables that hold a secret are masked."""
    words = ["./inv", "validate", "--model", str(plan.model), "--candidate", plan.candidate]
    words += ["--baseline", plan.baseline, "--against", plan.backend]
    words += ["--tests", ",".join(plan.tests), "--contexts", ",".join(map(str, plan.contexts))]
    if plan.release_dir:
        words += ["--release", plan.release]
    if plan.baseline_url:
        words += ["--baseline-url", plan.baseline_url, "--candidate-url", plan.candidate_url]
        words += ["--baseline-log", str(plan.baseline_log)] if plan.baseline_log else []
        words += ["--candidate-log", str(plan.candidate_log)] if plan.candidate_log else []
    words += ["--perplexity-bytes", str(plan.perplexity_bytes)]
    words += ["--seed", str(plan.seed), *(["--text", str(plan.text)] if plan.text != TEXT else [])]
    for name, value in sorted(plan.environment.items()):
        words += ["--set", f"deploy.environment.{name}={masked(name, value)}"]
    return shlex.join(words)


def environment(plan: Plan) -> str:
    """The servers' further variables, without secrets."""
    return ", ".join(f"{name}={masked(name, value)}" for name, value in sorted(plan.environment.items()))


def title(report: Report) -> str:
    """What was compared, in one line."""
    plan = report.plan
    return f"{plan.model_name}: {plan.candidate} against {plan.baseline}"


def headline(report: Report) -> str:
    """The decision, or that there is none yet."""
    if not report.complete:
        return f"Unfinished: {len(report.results)} of {len(report.plan.tests)} tests"
    return report.decision.answer.capitalize()


def visible(text: str) -> str:
    """A text whose hidden characters are shown by their number, as in ⟨U+202E⟩; lines end with \\n."""
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text.replace("\r\n", "\n"))


def shown(value: T) -> T:
    """A record, or what is inside of one, with all its texts `visible`."""
    if isinstance(value, str):
        return visible(value)  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(map(shown, value))  # type: ignore[return-value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{one.name: shown(getattr(value, one.name)) for one in fields(value)})
    return value


def in_markdown(text: str) -> str:
    """A text as one line of Markdown, in which nothing is markup."""
    line = " ".join(visible(text).split())
    line = _MARKUP.sub(lambda found: f"\\{found[0]}", line).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"^([#>+-]|\d+(?=[.)]))", r"\\\1", line)


def fenced(text: str) -> str:
    """A text as a block of code in Markdown, whatever backticks it has."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{visible(text)}\n{fence}"


def not_asked(report: Report, known: Sequence[str]) -> list[tuple[str, str]]:
    """Tests without a result, each with the reason: those not asked, not chosen, and not yet run."""
    found = [(one.test, one.summary) for one in report.results if one.verdict == "not asked"]
    measured = {one.test for one in report.results}
    for name in [*known, *(name for name in report.plan.tests if name not in known)]:
        if name not in measured:
            chosen = name in report.plan.tests
            found.append((name, "has not run yet" if chosen else "was not chosen (--tests)"))
    return found
