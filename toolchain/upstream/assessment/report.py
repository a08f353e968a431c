"""An assessment for readers: a page at the terminal, and the same in HTML."""

from __future__ import annotations

from pathlib import Path

import jinja2

from ...core.checkout import TEMPLATES
from ...core.records import write, write_bytes
from .assessment import Assessment

_MARKS = {"pass": "pass", "warn": "WARN", "fail": "FAIL", "unknown": "?", "not asked": "-"}


def text(found: Assessment) -> str:
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


def save(found: Assessment, folder: Path) -> Path:
    """Write assessment.json and assessment.html into `folder`; returns the path of the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    page = environment.get_template("assessment.html.j2").render(found=found)
    write(folder / "assessment.json", found)
    write_bytes(folder / "assessment.html", page.encode())
    return folder / "assessment.html"
