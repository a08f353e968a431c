"""What changed upstream since the last look."""

from __future__ import annotations

from collections.abc import Sequence

from ..sources import Commit
from ..upstream.watch.look import Moved, UpstreamLook
from .dispatch import as_text

_FEW = 12


@as_text.register
def _look(look: UpstreamLook) -> str:
    """What changed, whether the series applies, and the forge's news."""
    lines = [f"since {look.since}" if look.since else "the first look: nothing to compare with"]
    if look.since and not look.moved and not look.items:
        lines.append("  nothing new")
    for moved in look.moved:
        lines += _moved(moved)
    for item in look.items:
        lines.append(f"  new at the forge: {item.key} {item.date} {item.title} {item.url}".rstrip())
    for held in look.holding:
        lines.append(f"  {'applies' if held.holds else 'FAILED'} on {held.what}" + _because(held.reason))
    lines += [f"  note: {note}" for note in look.notes]
    return "\n".join(lines)


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _moved(moved: Moved) -> list[str]:
    lines = [f"  {moved.target}: {moved.commits} commits, now {moved.describe} ({moved.new[:12]})"]
    if moved.rewritten:
        lines.append(f"    history was rewritten: {moved.old[:12]} is not in it any more")
    for title, names in (
        ("releases", moved.releases),
        ("new tags", moved.tags),
        ("moved tags", moved.moved_tags),
        ("new data types", moved.types),
        ("new cache types", moved.cache_types),
        ("competing types", moved.rivals),
    ):
        if names:
            lines.append(f"    {title}: {_listed(names)}")
    if moved.pin != ("", ""):
        lines.append(f"    the pin: {moved.pin[0] or 'none'} -> {moved.pin[1] or 'none'}")
    if moved.symbols:
        lines.append(f"    {len(moved.symbols)} commits that touch symbols that our sources use")
        for touch in moved.symbols[:_FEW]:
            lines += [_commit(touch.commit), f"        {_listed(touch.symbols)}"]
    if moved.touching:
        lines.append(f"    {len(moved.touching)} commits in files that the series edits")
        lines += [_commit(one) for one in moved.touching[:_FEW]]
    named = {one.id for one in moved.touching[:_FEW]} | {touch.commit.id for touch in moved.symbols[:_FEW]}
    if others := [one for one in moved.worded if one.id not in named]:
        lines.append(f"    {len(others)} further commits by their titles")
        lines += [_commit(one) for one in others[:_FEW]]
    return lines


def _commit(one: Commit) -> str:
    return f"      {one.id[:12]} {one.date} {one.subject}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")
