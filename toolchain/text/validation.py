"""Validations as text: a report, and two of them compared."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from ..validation.comparison import FigureChange, RunComparison
from ..validation.result import Figure, Report
from ..validation.wording import command, difference, error, headline, judged, number, shown, title
from .dispatch import as_text

_WIDTH = 100
_NAME, _VALUE = 44, 11
"""columns of a name, at most, and of a value"""


@as_text.register
def _report(found: Report) -> str:
    """Each test with its figures, then the decision."""
    found = shown(found)
    plan = found.plan
    lines = _wrapped(f"{title(found)}, by {plan.backend} of {plan.release or 'an unknown release'}", "")
    for one in found.results:
        verdict = "void" if one.voids else one.verdict
        lines += _wrapped(f"{one.test:<13}{verdict:<11}{one.summary}", "  ", 26)
        lines += _table(
            (plan.baseline[:10], plan.candidate[:10]),
            [
                _Row(
                    figure.name,
                    (number(figure.baseline), number(figure.candidate)),
                    f"{error(figure.error)} {figure.unit}",
                    f"{figure.limit}: {judged(figure) or 'not judged'}" if figure.limit else "",
                )
                for figure in one.figures
            ],
        )
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
        lines += _table(("A", "B", "B less A"), [_changed(figure) for figure in test.figures])
    return "\n".join([*lines, "", f"{found.a.decision} -> {found.b.decision}"])


class _Row(NamedTuple):
    """A figure: its values in columns, what belongs to them, and what follows where there is room."""

    name: str
    values: tuple[str, ...]
    unit: str
    remark: str


def _changed(one: FigureChange) -> _Row:
    values = (_candidate(one.a), _candidate(one.b), difference(one.difference))
    beyond = {True: "beyond the errors", False: "within the errors", None: ""}[one.beyond]
    return _Row(one.name, values, f"{error(one.error)} {one.unit}", beyond)


def _candidate(figure: Figure | None) -> str:
    return number(figure.candidate) if figure else "-"


def _table(header: Sequence[str], rows: Sequence[_Row]) -> list[str]:
    """Figures below each other. A name that is too long has a line of its own, and so has a remark."""
    if not rows:
        return []
    width = max([len(row.name) for row in rows if len(row.name) <= _NAME], default=0)
    lines = [f"    {'':<{width}}{''.join(f'{one:>{_VALUE}}' for one in header)}"]
    for row in rows:
        name = row.name
        if len(name) > width:
            lines += _wrapped(name, "    ", 6)
            name = ""
        line = f"    {name:<{width}}{''.join(f'{one:>{_VALUE}}' for one in row.values)} {row.unit.strip()}".rstrip()
        if row.remark and len(line) + 1 + len(row.remark) <= _WIDTH:
            line = f"{line} {row.remark}"
        lines += _wrapped(line, "", 8)
        if row.remark and not line.endswith(row.remark):
            lines += _wrapped(row.remark, "        ", 10)
    return lines


def _wrapped(text: str, indent: str, further: int = 0) -> list[str]:
    """Lines of at most 100 columns; all but the first are indented by `further`."""
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=" " * further, break_on_hyphens=False
    ) or [indent.rstrip()]
