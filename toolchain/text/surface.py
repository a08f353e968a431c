"""The C surface: a snapshot, and what changed between two."""

from __future__ import annotations

from collections import Counter

from ..upstream.surface import ApiDiff, Snapshot, SurfaceChange
from .dispatch import as_text

_WIDTH, _SEVERAL = 150, 4
_ORDER = ("breaking", "recompiled", "unused", "additive")


@as_text.register
def _comparison(found: ApiDiff) -> str:
    """Everything that may matter, then the counts and the verdict. Additions are only counted."""
    lines = [f"{found.old} -> {found.new} on {found.platform}" + (f", for {found.ollama}" if found.ollama else "")]
    shown = [one for one in found.changes if one.effect != "additive" or one.change in ("sentinel", "deprecated")]
    groups: dict[tuple[str, ...], list[SurfaceChange]] = {}
    for one in sorted(shown, key=lambda one: (_ORDER.index(one.effect), one.change, one.kind, one.name)):
        groups.setdefault((one.effect, one.change, one.kind, one.used), []).append(one)
    for (effect, change, kind, used), ones in groups.items():
        if len(ones) > _SEVERAL:
            names = ", ".join(one.name for one in ones)
            lines.append(f"  {effect:<10} {change} {kind}, {len(ones)} of them: {names}"[:_WIDTH])
        else:
            lines += [f"  {effect:<10} {change} {kind} {one.name} {one.detail}"[:_WIDTH].rstrip() for one in ones]
        if used and effect != "additive":
            lines.append(f"             used at {used}")
    for use in found.server:
        if use.in_old and not use.in_new:
            lines.append(f"  breaking   lost {use.kind} {use.text}\n             used at {use.where}")
        elif use.in_new and not use.in_old:
            lines.append(f"  additive   new {use.kind} {use.text}\n             used at {use.where}")
    neither = [use for use in found.server if not use.in_old and not use.in_new]
    if neither:
        lines.append(f"  in neither tree, or composed at run time: {', '.join(use.text for use in neither)}"[:400])
    counts = Counter(f"{one.change} {one.kind}" for one in found.changes)
    if counts:
        lines.append("  " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    if found.server:
        held = sum(use.in_old and use.in_new for use in found.server)
        lines.append(
            f"  of {len(found.server)} flags, endpoints, fields, variables and lines of the log, {held} in both"
        )
    return "\n".join([*lines, f"  verdict: {found.verdict}"])


@as_text.register
def _surface(found: Snapshot) -> str:
    """What a snapshot holds, in one line for each kind."""
    kinds = Counter(one.kind for one in found.declared)
    values = sum(len(enum.values) for enum in found.enums)
    complete = [one for one in found.structs if one.complete]
    fields, hidden = sum(len(one.fields) for one in complete), len(found.structs) - len(complete)
    return "\n".join(
        [
            f"{found.describe} on {found.platform}: {len(found.headers)} headers",
            f"  {kinds['function']} functions, {kinds['variable']} variables, {kinds['typedef']} typedefs",
            f"  {len(found.enums)} enums with {values} values",
            f"  {len(complete)} structs and unions with {fields} members, {hidden} incomplete",
            f"  {len(found.macros)} macros that are constants",
            f"  {sum(one.deprecated for one in found.declared)} deprecated",
        ]
    )
