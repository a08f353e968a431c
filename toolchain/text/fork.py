"""A fork: its age, its conflicts, its Metal kernels."""

from __future__ import annotations

from ..upstream.fork.areas import AreaChange
from ..upstream.fork.branch import Branch
from ..upstream.fork.conflicts import Conflicts, MergeOutcome
from ..upstream.fork.freshness import Freshness
from ..upstream.fork.metal import MetalBranches
from .dispatch import as_text

_SHOWN = 8


@as_text.register
def _freshness(found: Freshness) -> str:
    """One line for each branch, and more for the first."""
    newest = found.newest
    lines = [f"{found.fork}: {found.verdict}, as of {found.now}"]
    lines.append(f"upstream's newest commit is b{newest.build}, {newest.commit[:12]}, {newest.date[:10]}")
    if found.newest_days >= 1:
        lines.append(f"  it is {found.newest_days:.1f} days old here; ages are measured to it")
    if newest.build > found.mirror_build:
        lines.append(f"  the mirror of upstream ends at b{found.mirror_build}; the fork has newer commits of upstream")
    if found.untrue_tags:
        lines.append(
            f"  {len(found.untrue_tags)} tags of the fork are not on the commit of their build or version, such as "
            f"{', '.join(found.untrue_tags[:3])}; its tags are ignored"
        )
    width = max(len(branch.name) for branch in found.branches)
    lines.append(
        f"{'branch':<{width}}  {'verdict':<10} {'age d':>6} {'base':>7} {'behind':>6} {'own':>4}  files  lines"
    )
    for one in found.branches:
        if one.base is None:
            near = f"  nearest by content: b{one.nearest.build}" if one.nearest else ""
            lines.append(f"{one.name:<{width}}  {one.verdict}{near}")
            continue
        by = "*" if one.base.by == "content" else ""
        lines.append(
            f"{one.name:<{width}}  {one.verdict:<10} {one.age_days:>6.1f} {f'b{one.base.build}{by}':>7} {one.behind:>6}"
            f" {len(one.own):>4}  {one.files:>5}  +{one.inserted} -{one.deleted}{'  turbo' if one.turbo else ''}"
        )
    if any(one.base and one.base.by == "content" for one in found.branches):
        lines.append("* newer than the merge base: the branch has this state of upstream in commits of its own")
    return "\n".join([*lines, "", *_branch(found.branches[0])])


def _branch(one: Branch) -> list[str]:
    if one.base is None or one.merge_base is None:
        return []
    lines = [f"{one.name} at {one.tip[:12]} of {one.tip_date[:10]}"]
    lines.append(f"  merge base b{one.merge_base.build} {one.merge_base.commit[:12]} of {one.merge_base.date[:10]}")
    if one.base.by == "content":
        lines.append(f"  by content b{one.base.build} {one.base.commit[:12]} of {one.base.date[:10]}")
    lines.append(
        f"  {len(one.own)} commits of its own; not counted: {one.merges} merges ({one.syncs} of upstream), "
        f"{one.equivalent} that equal one of upstream's, {one.imported} that import upstream's files"
    )
    activity = one.activity
    lines.append(
        f"  last own commit {activity.last[:10] or '-'}; {activity.days_30} in 30 days, {activity.days_90} in 90, by "
        f"{activity.authors} authors"
    )
    lines += [f"    {line}" for line in _areas(one.areas)]
    if one.unread:
        lines.append(f"    {one.unread} files whose contents are missing: their lines are not counted")
    return lines


def _areas(changes: tuple[AreaChange, ...]) -> list[str]:
    """Files and lines by area."""
    return [f"{one.area:<16} {one.files:>4} files  +{one.inserted} -{one.deleted}" for one in changes]


@as_text.register
def _conflicts(found: Conflicts) -> str:
    """Each way onto the pin, with its conflicts by area."""
    lines = [f"{found.branch} {found.tip[:12]} onto {found.onto[:12]}"]
    for outcome in found.outcomes:
        lines += _outcome(outcome, found.conflict_box)
    if found.picks:
        lines.append(
            f"  of {len(found.picks)} commits of its own, {found.picks_alone} apply alone, "
            f"{found.picks_in_order} in order (skipping those that conflict)"
        )
    lines.append(f"  basis of the estimate: {found.basis}")
    return "\n".join(lines)


def _outcome(outcome: MergeOutcome, box: float) -> list[str]:
    files, hunks = sum(area.files for area in outcome.areas), sum(area.hunks for area in outcome.areas)
    head = f"  {outcome.how} (base {outcome.base[:12]}): "
    if not outcome.conflicts:
        lines = [head + "no conflict"]
    else:
        over = "over" if outcome.minutes > box else "within"
        lines = [head + f"{files} files, {hunks} places, about {outcome.minutes:g} min, {over} the {box:g} min box"]
        if outcome.stop:
            lines.append(f"    STOP: conflicts in {' and '.join(outcome.stop)}")
        lines += [f"    {area.area:<16} {area.files:>4} files  {area.hunks:>4} places" for area in outcome.areas]
        for conflict in outcome.conflicts[:_SHOWN]:
            lines.append(f"      {conflict.kind}: {conflict.path} ({conflict.hunks})")
        if len(outcome.conflicts) > _SHOWN:
            lines.append(f"      and {len(outcome.conflicts) - _SHOWN} more (--json has all)")
    for patch in outcome.patches:
        if patch.on_pin:
            lines.append(f"    {patch.name} also fails on the pin itself: {', '.join(patch.on_pin)}")
        elif patch.on_outcome:
            lines.append(f"    {patch.name} no longer applies: {', '.join(patch.on_outcome)}")
    if outcome.patches and not any(patch.on_outcome for patch in outcome.patches):
        lines.append(f"    {len(outcome.patches)} patches of third parties apply on top")
    if outcome.left_out:
        lines.append(
            f"    without {len(outcome.left_out)} files whose contents are missing, such as {outcome.left_out[0]}"
        )
    return lines


@as_text.register
def _metal(found: MetalBranches) -> str:
    """One line for each branch, and the gaps of those that have kernels."""
    width = max(len(one.branch) for one in found)
    lines = []
    for one in found:
        lines.append(
            f"{one.branch:<{width}}  {one.verdict:<24} {len(one.kernels):>4} kernels  {', '.join(one.dispatch)}"
        )
        lines += [
            f"{'':<{width}}    {family}: {', '.join(ops) or 'none known'}" for family, ops in one.operations.items()
        ]
        lines += [f"{'':<{width}}    gap: {gap}" for gap in one.gaps]
    return "\n".join(lines)
