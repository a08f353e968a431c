"""The judgement of the needle test: of what the baseline finds, all must be found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import comb

from .needles import DEPTHS, SURE, Cell
from .plan import SIDES
from .result import Figure, Line, Plot, Table, TestResult, Verdict

NAME = "needle"


def judged(cells: Sequence[Cell], notes: Sequence[str]) -> TestResult:
    asked = [one for one in cells if one.asked]
    lost = [one for one in asked if not one.found[1]]
    gained = [one for one in cells if one.found[1] and not one.found[0]]
    unsure = [one for one in cells if one.found[0] and not one.asked]
    missed = len(cells) - len(asked) - len(unsure)
    also = [f"{missed} of {len(cells)} are not asked: the baseline does not find them"] if missed else []
    if unsure:
        kept = sum(one.found[1] for one in unsure)
        also.append(
            f"{len(unsure)} are not counted: the baseline leads by less than {SURE} nats, so that other batches can "
            f"change its answer; the candidate finds {kept} of them"
        )
    if not asked:
        why = "the baseline finds nothing surely" if cells else "no context has room for a text"
        return TestResult(
            test=NAME, verdict="not asked", summary=why, notes=(*also, *notes), tables=tuple(_tables(cells, lost))
        )
    if lost:
        verdict: Verdict = "failed"
        chance = sign_test(len(lost), len(gained))
        summary = f"{len(lost)} of {len(asked)} lost that the baseline finds"
        also.append(
            f"lost {len(lost)}, found by the candidate alone {len(gained)}: two equally good sides would lose as many "
            f"with a probability of {chance:.2g}"
        )
    else:
        verdict = "passed"
        summary = f"all {len(asked)} found: 0 of {len(asked)} lost says less than {_percent(3 / len(asked))} (95%)"
    figures = (*_figures(cells), Figure(name="needles found by the candidate alone", candidate=float(len(gained))))
    return TestResult(
        test=NAME,
        verdict=verdict,
        summary=summary,
        figures=figures,
        notes=(*also, *notes),
        plots=(_plot(cells),),
        tables=tuple(_tables(cells, lost)),
    )


def sign_test(lost: int, gained: int) -> float:
    """Probability that of lost + gained cells that differ, at least `lost` are losses, where both are as likely."""
    differ = lost + gained
    return float(sum(comb(differ, one) for one in range(lost, differ + 1)) / 2**differ)


def _percent(share: float) -> str:
    return f"{min(share, 1.0):.0%}" if share >= 0.1 else f"{share:.1%}"


def _contexts(cells: Sequence[Cell]) -> list[int]:
    return sorted({one.context for one in cells})


def _figures(cells: Sequence[Cell]) -> Iterator[Figure]:
    for context in _contexts(cells):
        asked = [one for one in cells if one.context == context and one.asked]
        if asked:
            found = sum(one.found[1] for one in asked)
            yield Figure(
                name=f"found at {context} tokens, of {len(asked)} that the baseline finds",
                baseline=100.0,
                candidate=round(100 * found / len(asked), 1),
                unit="%",
                limit="100%",
                ok=found == len(asked),
            )


def _plot(cells: Sequence[Cell]) -> Plot:
    contexts = _contexts(cells)
    lines = []
    for number, side in enumerate(SIDES):
        per = [[one.found[number] for one in cells if one.context == context] for context in contexts]
        shares = tuple(round(100 * sum(each) / len(each), 1) for each in per)
        lines.append(Line(name=side, x=tuple(map(float, contexts)), y=shares))
    return Plot(title="Needles found", x="context, tokens", y="of all, %", lines=tuple(lines))


def _tables(cells: Sequence[Cell], lost: Sequence[Cell]) -> Iterator[Table]:
    """Found of all, context by depth, for both sides; and what was lost."""
    if not cells:
        return
    rows = []
    for kind in ("single", "keyed", "several"):
        for context in _contexts(cells):
            for number, side in enumerate(SIDES):
                per = Counter[float]()
                of = Counter[float]()
                for one in cells:
                    if (one.question.kind, one.context) == (kind, context):
                        of[one.question.depth] += 1
                        per[one.question.depth] += one.found[number]
                each = [f"{per[depth]}/{of[depth]}" if of[depth] else "" for depth in (*DEPTHS, -1.0)]
                rows.append((kind, str(context), side, *each))
    depths = (*(f"{depth:.0%}" for depth in DEPTHS), "all depths")
    yield Table(title="Found, by depth", header=("needle", "context", "side", *depths), rows=tuple(rows))
    if lost:
        yield Table(
            title="Lost by the candidate",
            header=("context", "try", "needle", "wanted", "answered", "baseline's lead, nats"),
            rows=tuple(
                (
                    str(one.context),
                    str(one.attempt + 1),
                    one.question.key,
                    ", ".join(one.question.numbers),
                    " ".join(one.said.split())[:120],
                    "" if one.lead is None else f"{one.lead:.2f}",
                )
                for one in lost
            ),
        )
