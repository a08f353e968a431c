"""The contract with llama.cpp: what was recorded, proven and run."""

from __future__ import annotations

from ..contract.behaviour import Behaviour
from ..contract.proving import Proving, point_lines
from ..contract.recording import Recorded
from .dispatch import as_text


def behaviour_lines(found: Behaviour) -> list[str]:
    """For a reader at a terminal."""
    if found.skipped:
        return [f"  behaviour not checked: {found.skipped}"]
    if not found.wrong:
        return [f"  {found.operations} operations on our types go to our kernels"]
    return [f"  behaviour  {line}" for line in found.wrong]


@as_text.register
def _proving(found: Proving) -> str:
    """For a reader at a terminal."""
    lines = [f"series {found.series_sha256[:12]}"]
    for point in found.points:
        lines += point_lines(point)
    held = [point for point in found.points if point.ok]
    lines.append(f"  {len(held)} of {len(found.points)} points passed, in {found.seconds:.0f} s")
    return "\n".join(lines)


@as_text.register
def _recorded(recorded: Recorded) -> str:
    """For a reader at a terminal."""
    lines = [
        f"{recorded.symbols} symbols of llama.cpp {', '.join(recorded.trees)}; {recorded.several} in more than one form"
    ]
    lines += [f"  new: {name}" for name in recorded.added]
    lines += [f"  no longer used: {name}" for name in recorded.gone]
    return "\n".join(lines)
