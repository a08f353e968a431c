"""Releases: built, verified, installed, shipped."""

from __future__ import annotations

import sys

from ..deploy.following import LogLine, Restarted
from ..deploy.given import GivenEnvironment
from ..deploy.installer import ServiceLog
from ..pipeline import Shipped
from ..proofs import Verification
from ..rehearsal.rehearsal import Rehearsal
from ..service import servicelog
from ..stages import Deployment, Edit, Release
from .dispatch import as_text
from .quality import guarded


@as_text.register
def _verification(proven: Verification) -> str:
    """One line for each type and model: what llama-server's log states."""
    lines = [f"{proven.release}: version {proven.version}, proven in {proven.seconds:.1f} s"]
    for proof in proven.proofs:
        verdict = "proven" if proof.ok else f"NOT PROVEN: {proof.reason}"
        by = f" by the model's {proof.option}" if proof.option else ""
        lines.append(
            f"  {proof.kv_cache_type:<14} head size {proof.head_size:<4} {proof.tokens:>3} tokens  {verdict}{by}"
        )
        for cache in proof.caches:
            sizes = f"K {cache.type_k} {cache.mib_k:.3f} MiB, V {cache.type_v} {cache.mib_v:.3f} MiB"
            lines.append(f"    {cache.cells} cells, {cache.layers} layers: {sizes}; {proof.context_shifts} shifts")
    for point in proven.checklist:
        lines.append(f"  {point.number} {point.word:<6} {point.name}")
        lines.append(f"    {point.evidence}")
    for start in proven.gpu.starts if proven.gpu else ():
        lines.append(f"  first start of {start.program}: {start.first_s:.1f} s, second: {start.second_s:.1f} s")
    if proven.guard:
        lines += [f"  {line}" for line in guarded(proven.guard).splitlines()]
    if proven.unknown_type_message:
        lines.append(f"  answer to an unknown type: {proven.unknown_type_message}")
    return "\n".join(lines)


@as_text.register
def _deployment(state: Deployment) -> str:
    """What is active, what came before, and whether it is healthy."""
    if not state.active:
        return f"{state.prefix}: {state.reason or 'nothing is installed'}"
    health = "healthy" if state.healthy else f"NOT HEALTHY: {state.reason}"
    health += "" if state.verified else ", NOT VERIFIED"
    others = [name for name in state.releases if name != state.active]
    return "\n".join(
        [
            f"active    {state.active}  (version {state.version or '?'}, pid {state.pid or '-'}, {health})",
            f"parent    {state.parent or '-'}",
            f"releases  {', '.join(others) or 'none'}",
            f"service   {state.service or 'not loaded'}",
            *(f"also      {place}: this copy waits; the next deploy.install leaves one" for place in state.also),
            f"prefix    {state.prefix}",
            *([f"note      {state.fallback}"] if state.fallback else []),
            *(f"edited    {edit.file}: {edit.name or 'the file'} {_edited(edit)}" for edit in state.edits),
        ]
    )


def _edited(edit: Edit) -> str:
    match edit.change:
        case "added":
            return f"added: {edit.after!r}"
        case "removed":
            return f"removed: {edit.before!r}"
    return f"changed: {edit.before!r} to {edit.after!r}" if edit.name else "changed"


@as_text.register
def _given(environment: GivenEnvironment) -> str:
    """One line for each variable."""
    if not environment.release:
        return "nothing is installed"
    lines = [f"release {environment.release}, pid {environment.pid or '-'}, {environment.file}"]
    for one in environment.variables:
        lines.append(f"  {f'{one.name}={one.value}':<50} {one.source}")
        lines += [f"    until the next start: {one.running}"] if one.running else []
    if not environment.readable:
        lines.append("  (no running process shows its variables)")
    return "\n".join(lines)


@as_text.register
def _shipped(result: Shipped) -> str:
    """The end of a `ship`."""
    lines = [as_text(result.deployment), f"port      {result.port}", f"records   {result.run}"]
    lines += [f"passed over {one.release}: {one.reason}" for one in result.passed_over]
    return "\n".join(lines)


@as_text.register
def _release(built: Release) -> str:
    """What it is."""
    return f"{built.id}: version {built.version}, {len(built.files)} files"


@as_text.register
def _log(end: ServiceLog) -> str:
    """Its lines; on a terminal without control characters."""
    return "\n".join(map(_shown, end.log))


@as_text.register
def _log_line(one: LogLine) -> str:
    """The line."""
    return _shown(one.log)


@as_text.register
def _restarted(event: Restarted) -> str:
    """A line that is none of the log's."""
    how = f"; the process before ended with: {event.last_end}" if event.last_end else ""
    return f"--- the service {f'runs as pid {event.pid}' if event.pid else 'is not running'}{how} ---"


def _shown(line: str) -> str:
    return servicelog.clean(line) if sys.stdout.isatty() else line


@as_text.register
def _rehearsal(rehearsal: Rehearsal) -> str:
    """The summary for a reader."""
    lines = [*map(str, rehearsal.stages)]
    if rehearsal.rolled_back:
        lines.append(f"the second release was unhealthy and was rolled back; {rehearsal.active} is active")
    return "\n".join(lines)
