"""The C surface: a snapshot, and what changed between two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..upstream.surface import ApiDiff, Need, Snapshot, SurfaceChange, told_apart
from .dispatch import as_text

_WIDTH, _LIST, _SEVERAL = 150, 400, 4
_ORDER = ("breaking", "recompiled", "unused", "additive")


@as_text.register
def _comparison(found: ApiDiff) -> str:
    """Everything that may matter, then the counts and the verdict. Additions are only counted."""
    asked = " and ".join(one for one in (found.ollama, found.later) if one)
    lines = [f"{found.old} -> {found.new} on {found.platform}" + (f", for {asked}" if asked else "")]
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
    lines += _needed(found)
    lines += _listed("in neither tree, or composed at run time", [one for one in found.server if _is_foreign(one)])
    lines += _listed("in neither tree's sources", [one for one in found.names if _is_foreign(one)])
    if found.later:
        uses = (*found.names, *found.server)
        lines += _listed(f"{found.later} uses no more", [one for one in uses if not one.later])
        lines += _listed(f"{found.later} uses newly", [one for one in uses if not one.where])
    counts = Counter(f"{one.change} {one.kind}" for one in found.changes)
    if counts:
        lines.append("  " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    if found.server:
        held = sum(use.in_old and use.in_new for use in found.server)
        lines.append(
            f"  of {len(found.server)} flags, endpoints, fields, variables and lines of the log, {held} in both"
        )
    if found.names:
        held = sum(one.in_old and one.in_new for one in found.names)
        lines.append(f"  of {len(found.names)} names of llama.cpp in Ollama's code, {held} in both")
    return "\n".join([*lines, f"  verdict: {found.verdict}"])


def _needed(found: ApiDiff) -> list[str]:
    groups: dict[str, list[Need]] = {}
    for use in sorted(told_apart(found), key=lambda use: use.in_new):
        groups.setdefault(f"{'additive   new' if use.in_new else 'breaking   lost'} {use.kind}", []).append(use)
    lines = []
    for what, ones in groups.items():
        if len(ones) > _SEVERAL:
            lines.append(f"  {what}, {len(ones)} of them: {', '.join(use.text for use in ones)}"[:_WIDTH])
        else:
            lines += [f"  {what} {use.text}\n             used at {use.where or use.later}" for use in ones]
    return lines


def _is_foreign(one: Need) -> bool:
    return not one.in_old and not one.in_new


def _listed(what: str, ones: Sequence[Need]) -> list[str]:
    count = f", {len(ones)} of them" if len(ones) > _SEVERAL else ""
    return [f"  {what}{count}: {', '.join(one.text for one in ones)}"[:_LIST]] if ones else []


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
