"""What fits into memory."""

from __future__ import annotations

from ..models.memory.plan import GIB, Cell, MemoryPlan, TypePlan
from .dispatch import as_text


@as_text.register
def _plan(plan: MemoryPlan) -> str:
    """A table of contexts by cache types, the largest contexts, and the recommendation."""
    most = f" to {plan.gpu_most / GIB:.1f}" if plan.gpu_most > plan.gpu else ""
    gpu = f", Metal {plan.gpu / GIB:.1f}{most} GiB" if plan.gpu else ""
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


def _row(one: TypePlan) -> str:
    if one.obstacle:
        return f"  does not load: {one.obstacle}"
    return "".join(map(_cell, one.cells)) + f"{one.largest_context:>12}"


def _cell(cell: Cell) -> str:
    mark = "!" if not cell.fits else "" if cell.gpu_fits else "~" if cell.gpu_may_fit else "*"
    return f"{_gib(cell.total):>8}{mark:<1}"


def _recommended(plan: MemoryPlan) -> str:
    best = plan.recommendation
    if not best.types:
        return f"nothing fits: {best.reason}"
    return f"recommended: {best.types}, up to {best.context} tokens: {best.reason}"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def _tokens(context: int) -> str:
    return f"{context >> 10}K" if context % 1024 == 0 else str(context)
