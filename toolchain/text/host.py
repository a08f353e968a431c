"""The machine, and its missing requirements."""

from __future__ import annotations

from ..host.doctor import Requirements
from ..host.gpulimit import GpuLimit
from ..host.machine import Machine
from ..models.memory.plan import GIB
from .dispatch import as_text


@as_text.register
def _findings(found: Requirements) -> str:
    """Which requirements are met."""
    lines = []
    for item in found:
        lines.append(f"{'ok' if item.ok else 'MISSING':<8} {item.name:<12} {item.found or '-':<32} {item.needed}")
        if not item.ok:
            lines.append(f"         try: {item.hint}")
    return "\n".join(lines)


@as_text.register
def _machine(found: Machine) -> str:
    """The facts, one in a line, and unknown ones."""
    facts = [
        ("system", f"{found.system}, {found.platform}"),
        ("chip", f"{found.chip}, {found.cores} cores" if found.chip else ""),
        ("gpu", f"{found.gpu}, family {found.gpu_family or 'unknown'}" if found.gpu else ""),
        ("memory", f"{found.ram / GIB:.1f} GiB" if found.ram else ""),
        ("Metal", _limit(found.limit) if found.limit.low else ""),
        ("free disk", f"{found.free_disk / GIB:.1f} GiB"),
        ("tools", found.developer_tools),
    ]
    lines = [f"{name:<12}{said}" for name, said in facts if said]
    for port in found.ports:
        who = f"Ollama {port.ollama}" if port.ollama else "no Ollama"
        lines.append(f"{f'port {port.number}':<12}{who}{f', {port.program}' if port.program else ''}")
    return "\n".join([*lines, *(f"unknown:    {one}" for one in found.unknown)])


def _limit(limit: GpuLimit) -> str:
    most = f" to {limit.high / GIB:.1f}" if limit.high > limit.low else ""
    undone = "; a reboot undoes that" if limit.by_hand else ""
    return f"may use {limit.low / GIB:.1f}{most} GiB ({limit.source}{undone})"
