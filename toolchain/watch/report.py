"""A look for a reader."""

from __future__ import annotations

from .look import Look, Moved

_FEW = 12


def text(look: Look) -> str:
    """What came, whether the series holds, and what the forge said."""
    lines = [f"since {look.since}" if look.since else "the first look: there is nothing to compare with"]
    if look.since and not look.moved and not look.items:
        lines.append("  nothing new")
    for moved in look.moved:
        lines += _moved(moved)
    for item in look.items:
        lines.append(f"  new at the forge: {item.key} {item.date} {item.title} {item.url}".rstrip())
    for held in look.holding:
        lines.append(f"  {'holds' if held.holds else 'DOES NOT HOLD'} on {held.what}" + _because(held.reason))
    lines += [f"  note: {note}" for note in look.notes]
    return "\n".join(lines)


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _moved(moved: Moved) -> list[str]:
    lines = [f"  {moved.target}: {moved.commits} commits, now {moved.describe} ({moved.new[:12]})"]
    if moved.rewritten:
        lines.append(f"    history was rewritten: {moved.old[:12]} is no part of it any more")
    for title, names in (
        ("releases", moved.releases),
        ("new tags", moved.tags),
        ("moved tags", moved.moved_tags),
        ("new data types", moved.types),
        ("new cache types", moved.cache_types),
        ("rivals of ours", moved.rivals),
    ):
        if names:
            more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
            lines.append(f"    {title}: {', '.join(names[:_FEW])}{more}")
    if moved.pin != ("", ""):
        lines.append(f"    the pin: {moved.pin[0] or 'none'} -> {moved.pin[1] or 'none'}")
    if moved.touching:
        lines.append(f"    {len(moved.touching)} commits in files that the series edits")
        lines += [f"      {one.id[:12]} {one.date} {one.subject}" for one in moved.touching[:_FEW]]
    return lines
