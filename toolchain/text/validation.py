"""A validation's report as text."""

from __future__ import annotations

from ..validation.result import Figure, Report
from .dispatch import as_text


@as_text.register
def _report(found: Report) -> str:
    """The decision, and each test with its figures."""
    plan = found.plan
    lines = [f"{plan.model_name}: {plan.candidate} against {plan.baseline}, {plan.backend}, {plan.release}"]
    for one in found.results:
        lines.append(f"  {one.test:<13} {one.verdict:<10} {one.summary}")
        lines += [f"  {'':<13} {_figure(figure)}" for figure in one.figures]
        lines += [f"  {'':<13} void: {why}" for why in one.voids]
    lines.append(f"{found.decision.answer}: " + "; ".join(found.decision.reasons))
    return "\n".join(lines)


def _figure(one: Figure) -> str:
    sides = " -> ".join("-" if value is None else f"{value:.4g}" for value in (one.baseline, one.candidate))
    error = "" if one.error is None else f" ± {one.error:.2g}"
    met = "open" if one.ok is None else "ok" if one.ok else "missed"
    limit = f" ({one.limit}: {met})" if one.limit else ""
    return f"{one.name}: {sides}{error} {one.unit}{limit}".rstrip()
