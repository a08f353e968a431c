"""A plan, and what a machine is, for a reader."""

from __future__ import annotations

from ...host.machine import Machine
from .plan import GIB, Cell, Plan, TypePlan


def text(plan: Plan) -> str:
    """A table of contexts by cache types, the largest contexts, and the recommendation."""
    gpu = f", Metal {plan.gpu / GIB:.1f} GiB" if plan.gpu else ""
    many = f", {plan.sequences} sequences" if plan.sequences > 1 else ""
    lines = [
        f"{plan.model} ({plan.architecture}, trained on {plan.context_length} tokens{many})",
        f"weights {_gib(plan.weights)} GiB; RAM {plan.ram / GIB:.1f} GiB, budget {plan.budget / GIB:.1f} GiB{gpu}",
        "",
    ]
    contexts = next((one.cells for one in plan.types if one.cells), ())
    width = max(14, *(len(one.types) + 2 for one in plan.types))
    lines.append(
        "GiB in all".ljust(width) + "".join(f"{_tokens(cell.context):>9}" for cell in contexts) + "     largest"
    )
    lines += [one.types.ljust(width) + _row(one) for one in plan.types]
    lines += ["", _recommended(plan), *plan.notes]
    return "\n".join(lines)


def machine(found: Machine) -> str:
    """The facts, one in a line, and what is not known."""
    facts = [
        ("system", f"{found.system}, {found.platform}"),
        ("chip", f"{found.chip}, {found.cores} cores" if found.chip else ""),
        ("gpu", f"{found.gpu}, family {found.gpu_family or 'not known'}" if found.gpu else ""),
        ("memory", f"{found.ram / GIB:.1f} GiB" if found.ram else ""),
        ("Metal", f"may use {found.gpu_limit / GIB:.1f} GiB" if found.gpu_limit else ""),
        ("free disk", f"{found.free_disk / GIB:.1f} GiB"),
        ("tools", found.developer_tools),
    ]
    lines = [f"{name:<12}{said}" for name, said in facts if said]
    for port in found.ports:
        who = f"Ollama {port.ollama}" if port.ollama else "no Ollama"
        lines.append(f"{f'port {port.number}':<12}{who}{f', {port.program}' if port.program else ''}")
    return "\n".join([*lines, *(f"not known:  {one}" for one in found.unknown)])


def _row(one: TypePlan) -> str:
    if one.obstacle:
        return f"  does not load: {one.obstacle}"
    return "".join(map(_cell, one.cells)) + f"{one.largest_context:>12}"


def _cell(cell: Cell) -> str:
    mark = "!" if not cell.fits else "" if cell.gpu_fits else "*"
    return f"{_gib(cell.total):>8}{mark:<1}"


def _recommended(plan: Plan) -> str:
    best = plan.recommendation
    if not best.types:
        return f"nothing fits: {best.reason}"
    return f"recommended: {best.types}, up to {best.context} tokens: {best.reason}"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def _tokens(context: int) -> str:
    return f"{context >> 10}K" if context % 1024 == 0 else str(context)
