"""Metal kernels: inspected, run, audited, and what they cost."""

from __future__ import annotations

from ..metal.audit import TreeAudits
from ..metal.cost import Costs
from ..metal.inspection import Inspection
from ..metal.results import MetalRun
from ..metal.roofline import CLASS_27B, M3_MAX, CostEstimate, TokenEstimates
from .dispatch import as_text


@as_text.register
def _inspection(found: Inspection) -> str:
    """For a reader at a terminal."""
    counts = ", ".join(f"{count} kernels {variant}" for variant, count in found.kernels.items())
    where = f" in {found.libraries} libraries" if found.libraries > 1 else ""
    lines = [f"{found.tree}: {counts}{where}; {found.flash_attention} of flash attention. {found.seconds:.1f} s"]
    lines += [f"  no kernel {name}, which {where} uses" for name, where in found.absent.items()]
    lines += [f"  nothing uses {name}" for name in found.unasked]
    lines += [f"  {name} is in {files}" for name, files in found.twice.items()]
    if found.ok:
        lines.append(f"  all compile; {found.names} calls of the host code find their kernels, and no kernel is idle")
    lines.append(f"  not checked: {', '.join(found.not_checked)}")
    return "\n".join(lines)


@as_text.register
def _runs(ran: MetalRun) -> str:
    """The cases as lines of text."""
    lines = [f"{'kernel':<46} {'type':<14} {'head size':<9} {'error':>9} {'operations':>10}"]
    for case in ran.cases:
        exact = "bit-equal" if case.bit_equal else "differs"
        error = f"{case.max_error:.1e}" if case.max_error is not None else exact
        cost = f"{case.operations:.1f}" if case.operations is not None else ""
        lines.append(f"{case.kernel:<46} {case.type:<14} {case.head_size:<9} {error:>9} {cost:>10}".rstrip())
        lines += [f"  FAILED: {reason}" for reason in case.wrong]
    known = sorted({finding for case in ran.cases for finding in case.upstream})
    lines += [f"in upstream's own kernels: {finding}" for finding in known]
    return "\n".join([*lines, f"{ran.passed} of {len(ran.cases)} cases passed on {ran.tree}"])


@as_text.register
def _audit(found: TreeAudits) -> str:
    """A paragraph for each tree, a line for each type and for each missing kernel."""
    lines = []
    for tree in found:
        lines.append(
            f"{', '.join(tree.branches)}: {tree.verdict}" + (f", {tree.kernels} kernels" if tree.kernels else "")
        )
        if tree.why:
            lines.append(f"  {tree.why.splitlines()[0]}")
        for kind in tree.types:
            lines.append(
                f"  {kind.type:<10} {8 * kind.bytes / kind.block:5.3f} bits, blocks of {kind.block}: {kind.verdict}"
            )
            lines += [f"    no {what}" for what in kind.missing]
            lines += [f"    the host code uses {name}, which is missing: {what}" for name, what in kind.absent.items()]
    return "\n".join(lines)


@as_text.register
def _costs(found: Costs) -> str:
    """A table for each shape."""
    lines = [f"{found.tree}, head size {found.head}; for a value of K or V and a query head"]
    last = None
    for cost in found.costs:
        shape = (cost.queries, cost.group, cost.positions)
        if shape != last:
            lines += [
                f"{cost.queries} {'query' if cost.queries == 1 else 'queries'}, {cost.group} heads on one of K and V,"
                f" {cost.positions} positions",
                f"  {'K/V':<14} {'operations':>10} {'in matrices':>11} {'bytes read':>10} {'loaded':>8}"
                f" {'threadgroup':>11}",
            ]
            last = shape
        lines.append(
            f"  {cost.k + '/' + cost.v if cost.k != cost.v else cost.k:<14} {cost.operations:>10.3f}"
            f" {cost.matrix:>11.2f} {cost.read:>10.4f} {cost.loaded:>8.3f} {cost.threadgroup_bytes:>11}"
        )
    return "\n".join(lines)


@as_text.register
def _estimates(found: TokenEstimates) -> str:
    """A table, with what it was taken from."""
    lines = [
        f"ESTIMATE by peaks only, {M3_MAX.name}, {CLASS_27B.name}; milliseconds for a token",
        f"  {M3_MAX.source}",
        f"  {CLASS_27B.source}",
        f"  {'K/V':<12} {'positions':>9} {'arithmetic':>10} {'memory':>8} {'(uncached)':>10} {'weights':>8}"
        f" {'token':>8}",
    ]
    lines += [
        f"  {one.type:<12} {one.positions:>9} {one.arithmetic:>10.1f} {one.memory:>8.1f} {one.memory_uncached:>10.1f}"
        f" {one.weights:>8.1f} {one.token:>8.1f}"
        for one in found
    ]
    return "\n".join(lines)


@as_text.register
def _cost_estimate(found: CostEstimate) -> str:
    """Both tables."""
    return f"{_costs(found.counted)}\n{_estimates(found.estimates)}"
