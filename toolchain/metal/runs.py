"""`metal.run`: the kernels of a tree, executed through its own host code, against the reference in C and float64."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..core.cachetypes.table import BESIDE
from ..core.config import Config
from ..core.console import Console
from ..core.errors import ToolchainError
from ..core.run import Run
from ..series.manifest import Series, load_series
from . import cases, device
from .attention import Attention, pose
from .backend import Backend
from .execute import execute, unwritten
from .findings import Report
from .formats import Format, formats
from .host import Host, Operation, RecordedOperation, build_host
from .libraries import Libraries
from .results import Case, MetalRun

TOLERANCE = 1.5e-3
"""Largest error of attention, relative to the largest value of the result. Operands are halves (2^-11 of a value each):
one case with other seeds and types differs by 4e-4 to 7e-4, the worst of the 132 cases by 1.04e-3."""
_C = TypeVar("_C", Attention, cases.Conversion)
ARITHMETIC = ("float", "integer", "convert", "select", "special")
KERNELS = (
    "kernel_flash_attn_ext_pad", "kernel_flash_attn_ext_blk", "kernel_flash_attn_ext_vec_reduce",
    "kernel_flash_attn_ext_kv_*",
    *(f"kernel_flash_attn_ext*_{name}_dk{size}_dv{size}" for name in cases.FOREIGN for size in (64, 128)),
)  # fmt: skip


def choose(
    run: Run, tree: Path | None, program: Path | None, *, patched: Callable[[Run], Path], full: bool = False
) -> MetalRun:
    """On a Mac, or with a `program`, run llama.cpp's own test on the GPU, built of `tree` unless given; else the
    harness on `tree`. Its default is that from `patched`."""
    series = load_series(run)
    if program is None and sys.platform != "darwin":
        where = tree or patched(run)
        return run_tree(where, series, run.config, run.workspace, run.console, full=full)
    built = program or device.build(tree or patched(run), run.config, run.workspace, run.console)
    return device.run_device(built, tuple(kind.name for kind in series.types), run.console)


def run_tree(
    tree: Path,
    series: Series,
    config: Config,
    workspace: Path,
    console: Console,
    *,
    full: bool = False,
    only: Sequence[Attention] = (),
) -> MetalRun:
    """Compile the kernels and the host code of a patched tree and run every case, or `only` these and no rows.

    Raises `KernelInvalid` or `NotModelled` for a source that does not compile, `BuildFailed` for host code.
    """
    with console.step("compile the host code"):
        host = build_host(tree, config, workspace)
    known = formats(series, config, workspace)
    conversions = [case for kind in series.types for case in cases.conversions(known[kind.name]) if not only]
    conversions += _claimed(host, [*cases.calibrations()], lambda case: case.operation) if not only else []
    attentions = [*only] or [
        *cases.attentions([kind.name for kind in series.types], full),
        *_claimed(host, [*cases.foreign()], lambda case: pose(case, known).operation),
    ]
    asked = [case.operation for case in conversions] + [pose(case, known).operation for case in attentions]
    with console.step("compile the kernels"):
        library = compile_tree(tree, host, workspace, asked)
    jobs: list[Callable[[], Case]] = [partial(run_conversion, host, library, case) for case in conversions]
    jobs += [partial(run_attention, host, library, case, known) for case in attentions]
    with console.step(f"run {len(jobs)} cases"), ThreadPoolExecutor(2) as pool:
        done = tuple(pool.map(lambda job: job(), jobs))
    passed = sum(case.ok for case in done)
    return MetalRun(tree=str(tree), cases=done, passed=passed, failed=len(done) - passed)


def compile_tree(
    tree: Path, host: Host, workspace: Path, asked: Sequence[Operation], kernels: Iterable[str] = KERNELS
) -> Libraries:
    """The backend's kernels that match one of the patterns, compiled into `workspace`, and the libraries that the
    host code makes for operations. Raises as `Backend`."""
    cache = workspace / "metal" / "kernels"
    return Libraries(Backend(tree, cache, kernels), host.sources(asked), host.program.parent)


def run_conversion(host: Host, library: Libraries, case: cases.Conversion) -> Case:
    """A row operation, bit for bit."""
    before = unwritten(case.expected.size)
    head_size = str(case.operation.operands[0].ne[0]) if case.operation.operands[0] else ""
    kernel = f"{case.operation.name} {case.type}"
    try:
        done = execute(host, library, case.operation, case.operands, before)
    except ToolchainError as error:
        return Case(kernel=kernel, type=case.type, head_size=head_size, max_error=None, bit_equal=False, ok=False,
                    wrong=(error.message,))  # fmt: skip
    if not done.recorded.claimed:
        return _unclaimed(kernel, case.type, head_size)
    kernel = _main(done.recorded)
    wanted = np.where(case.written == 1, case.expected, before)
    equal = bool(np.array_equal(done.result, wanted))
    wrong = [str(finding) for finding in done.findings]
    if not equal:
        at = int(np.flatnonzero(done.result != wanted)[0])
        wrong.append(f"byte {at} of the result is {done.result[at]}, not {wanted[at]}")
    return Case(kernel=kernel, type=case.type, head_size=head_size, max_error=None, bit_equal=equal, ok=not wrong,
                wrong=tuple(wrong))  # fmt: skip


def run_attention(host: Host, library: Libraries, case: Attention, known: dict[str, Format]) -> Case:
    """Attention against float64. Findings of the harness fail our kernels; in upstream's own they are only reported."""
    posed = pose(case, known)
    kind, size = f"{case.k}/{case.v}", f"{case.dk}/{case.dv}"
    try:
        done = execute(host, library, posed.operation, posed.operands, unwritten(4 * posed.expected.size))
        if not done.recorded.claimed:
            return _unclaimed("FLASH_ATTN_EXT", kind, size)
    except ToolchainError as error:
        return Case(kernel="FLASH_ATTN_EXT", type=kind, head_size=size, max_error=None, bit_equal=None, ok=False,
                    wrong=(error.message,))  # fmt: skip
    result = done.result.view(np.float32).reshape(posed.expected.shape)
    error_ = float(np.max(np.abs(result - posed.expected)) / np.max(np.abs(posed.expected)))
    own = {case.k, case.v} - set(BESIDE) != set()
    wrong = [str(finding) for finding in done.findings if own]
    if not error_ <= TOLERANCE:
        wrong.append(f"the result differs by {error_:.2g} of its largest value")
    return Case(
        kernel=_main(done.recorded), type=kind, head_size=size, max_error=error_, bit_equal=None, ok=not wrong,
        operations=operations(done.reports, case), wrong=tuple(wrong),
        upstream=() if own else tuple(sorted({f"{found.kind} at {found.where}" for found in done.findings})),
    )  # fmt: skip


def operations(reports: Sequence[Report], case: Attention) -> float:
    """Arithmetic of all dispatches for each value of K or V and each query head."""
    spent = sum(report.operations.get(kind, 0) for report in reports for kind in ARITHMETIC)
    return spent / (case.sequences * case.queries * case.heads * case.positions * (case.dk + case.dv))


def _claimed(host: Host, wanted: Sequence[_C], operation: Callable[[_C], Operation]) -> list[_C]:
    """Of cases of upstream's own operations, those that the tree's backend has."""
    answers = host.record([operation(case) for case in wanted], claims_only=True)
    return [case for case, answer in zip(wanted, answers, strict=True) if answer.claimed]


def _main(recorded: RecordedOperation) -> str:
    """The kernel that an operation is about, among those that prepare and finish it."""
    names = [dispatch.kernel for dispatch in recorded.dispatches]
    aside = ("_pad", "_blk", "_reduce")
    return next((name for name in names if not name.endswith(aside)), names[0])


def _unclaimed(kernel: str, kind: str, head_size: str) -> Case:
    return Case(kernel=kernel, type=kind, head_size=head_size, max_error=None, bit_equal=None, ok=False,
                wrong=("the host code does not claim to support it",))  # fmt: skip
