"""An assessment, on one page of a terminal."""

from __future__ import annotations

from ..upstream.assessment import Assessment
from .dispatch import as_text

_MARKS = {"pass": "pass", "warn": "WARN", "fail": "FAIL", "unknown": "?", "not asked": "-"}


@as_text.register
def _assessment(found: Assessment) -> str:
    """One page."""
    lines = [f"DECISION: {found.decision}   (confidence: {found.confidence})", ""]
    lines += [f"  - {reason}" for reason in found.reasons]
    lines += ["", f"{'gate':<10} {'':<5} what was found"]
    lines += [f"{name:<10} {_MARKS[gate.status]:<5} {gate.summary}" for name, gate in found.gates.items()]
    lines += ["", f"{'path':<15} {'':<7} minutes"]
    for path in found.paths:
        state = "open" if path.open else "closed"
        minutes = f"{path.minutes:>7.0f}" if path.open and path.minutes else f"{'-':>7}"
        lines.append(f"{path.path:<15} {state:<7} {minutes}  {path.reasons[0]}")
    lines += ["", f"Ollama {found.ollama}", f"llama.cpp {found.llama_cpp} (pin {found.pin})"]
    if found.fork:
        lines.append(f"fork {found.fork}, branch {found.branch}")
    lines.append(f"for {found.platform}, as of {found.now[:10]}; {found.seconds:.1f} s")
    return "\n".join(lines)
