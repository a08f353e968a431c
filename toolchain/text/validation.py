"""Validations as text: a report, and two of them compared."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ..validation.comparison import FigureChange, RunComparison
from ..validation.result import Figure, Report
from ..validation.wording import command, difference, error, headline, judged, number, shown, title
from .dispatch import as_text

_WIDTH = 100
_NAME, _VALUE = 30, 11


@as_text.register
def _report(found: Report) -> str:
    """Each test with its figures, then the decision."""
    found = shown(found)
    plan = found.plan
    lines = _wrapped(f"{title(found)}, by {plan.backend} of {plan.release or 'an unknown release'}", "")
    for one in found.results:
        verdict = "void" if one.voids else one.verdict
        lines += _wrapped(f"{one.test:<13}{verdict:<11}{one.summary}", "  ", 26)
        if one.figures:
            sides = f"{plan.baseline[:10]:>{_VALUE}}{plan.candidate[:10]:>{_VALUE}}"
            lines.append(f"    {'':<{_NAME}}{sides}")
        for figure in one.figures:
            lines += _figure(figure)
        lines += [line for why in one.voids for line in _wrapped(f"void: {why}", "    ", 10)]
    lines += ["", f"{headline(found)}:"]
    if found.complete:
        lines += [line for reason in found.decision.reasons for line in _wrapped(reason, "  ", 4)]
    lines += _wrapped(f"next: {found.decision.next if found.complete else command(plan)}", "  ", 8)
    return "\n".join(lines)


@as_text.register
def _comparison(found: RunComparison) -> str:
    """What the runs differ in, the verdicts, the figures that changed; the decisions last."""
    found = shown(found)
    lines = _wrapped(f"{found.model}, contexts {', '.join(map(str, found.contexts))}", "")
    for name, one in (("A", found.a), ("B", found.b)):
        lines += _wrapped(f"{name}  {one.candidate} against {one.baseline}: {one.id}", "  ", 5)
    lines += [line for one in found.differences for line in _wrapped(f"the runs differ in {one}", "  ", 4)]
    for test in found.tests:
        verdicts = f"{test.a or 'not run'} -> {test.b or 'not run'}" if test.changed else test.a
        lines.append(f"  {test.test:<13}{verdicts}")
        if test.figures:
            lines.append(f"    {'':<{_NAME}}{'A':>{_VALUE}}{'B':>{_VALUE}}{'B less A':>{_VALUE}}")
        lines += [line for figure in test.figures for line in _changed(figure)]
    return "\n".join([*lines, "", f"{found.a.decision} -> {found.b.decision}"])


def _figure(one: Figure) -> Iterator[str]:
    limit = f"{one.limit}: {judged(one) or 'not judged'}" if one.limit else ""
    yield from _row(one.name, (number(one.baseline), number(one.candidate)), (error(one.error), one.unit, limit))


def _changed(one: FigureChange) -> Iterator[str]:
    values = (_candidate(one.a), _candidate(one.b), difference(one.difference))
    beyond = {True: "beyond the errors", False: "within the errors", None: ""}[one.beyond]
    yield from _row(one.name, values, (error(one.error), one.unit, beyond))


def _candidate(figure: Figure | None) -> str:
    return number(figure.candidate) if figure else "-"


def _row(name: str, values: tuple[str, ...], rest: tuple[str, ...]) -> list[str]:
    """A name, its values in columns, and what is left; a name that is too long has a line of its own."""
    columns = "".join(f"{one:>{_VALUE}}" for one in values)
    tail = " ".join(filter(None, rest))
    indent = 4 + _NAME + len(columns) + 1
    if len(name) <= _NAME:
        return _wrapped(f"{name:<{_NAME}}{columns} {tail}".rstrip(), "    ", indent)
    return [*_wrapped(name, "    ", 6), *_wrapped(f"{'':<{_NAME}}{columns} {tail}".rstrip(), "    ", indent)]


def _wrapped(text: str, indent: str, further: int = 0) -> list[str]:
    """Lines of at most 100 columns; all but the first are indented by `further`."""
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=" " * further, break_on_hyphens=False
    ) or [indent.rstrip()]
