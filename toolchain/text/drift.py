"""The series on a range of upstream."""

from __future__ import annotations

from ..series.drift import Drift
from ..series.drift_page import share
from .dispatch import as_text


@as_text.register
def _drift(drift: Drift) -> str:
    """How many points apply, every edit that does not apply everywhere, and the commits that changed that."""
    lines = [f"series {drift.series_sha256[:12]}"]
    for survey in drift.surveys:
        if not survey.points:
            lines.append(f"  {survey.target}: no points")
            continue
        first, last = survey.points[0], survey.points[-1]
        lines.append(
            f"  {survey.target} {first.name} ({first.date}) to {last.name} ({last.date}): "
            f"{survey.held} of {len(survey.points)} points apply without changes ({share(survey):.1f}%)"
        )
        for edit in survey.edits:
            if edit.held < edit.points:
                lines.append(f"    {edit.held:>4} of {edit.points:<4} {edit.name:<28} {edit.file}")
        for turn in survey.turns:
            verb = "applies since" if turn.holds else "broken by"
            lines.append(
                f"    {turn.edit}: {verb} {turn.commit[:12]} {turn.date} {turn.subject} (seen at {turn.point})"
            )
            lines.append(f"      {turn.reason}")
        if unserved := [point for point in survey.points if point.reason]:
            names = f"{unserved[0].name} to {unserved[-1].name}"
            lines.append(f"    {len(unserved)} points are not supported, {names}; the last: {unserved[-1].reason}")
    lines.append(f"  {drift.judged} contents judged in {drift.seconds:.1f} s")
    return "\n".join(lines)
