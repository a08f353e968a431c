"""The results of a run of kernels."""

from __future__ import annotations

from ..core.errors import KernelInvalid
from ..core.records import record


@record
class Case:
    """One case: `type` is K/V for attention. `bit_equal` only applies to operations without float arithmetic."""

    kernel: str
    type: str
    head_size: str
    max_error: float | None
    bit_equal: bool | None
    ok: bool
    operations: float | None = None
    """of attention: arithmetic for each value of K or V and each query head, over all dispatches"""
    wrong: tuple[str, ...] = ()
    """why it failed"""
    upstream: tuple[str, ...] = ()
    """the harness's findings in upstream's own kernels, if these ran"""


@record
class MetalRun:
    """All cases of a tree."""

    tree: str
    cases: tuple[Case, ...]
    passed: int
    failed: int

    def failure(self) -> KernelInvalid | None:
        """The error of a run in which a case failed."""
        if not self.failed:
            return None
        return KernelInvalid(
            f"{self.tree}: {self.failed} of {len(self.cases)} cases failed", hint="they are listed above"
        )
