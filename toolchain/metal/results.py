"""What a run of the kernels comes to."""

from __future__ import annotations

from ..core.errors import KernelInvalid
from ..core.records import record


@record
class Case:
    """One case: `type` is K/V for attention. `bit_equal` is only asked of what is not computed in floats."""

    kernel: str
    type: str
    head_size: str
    max_error: float | None
    bit_equal: bool | None
    ok: bool
    operations: float | None = None
    """of attention: arithmetic for a value of K or V and a query head that uses it, all dispatches counted"""
    wrong: tuple[str, ...] = ()
    """what made it fail"""
    upstream: tuple[str, ...] = ()
    """what the harness found in upstream's own kernels, where these ran"""


@record
class MetalRun:
    """All cases of a tree."""

    tree: str
    cases: tuple[Case, ...]
    passed: int
    failed: int

    def failure(self) -> KernelInvalid | None:
        """What a run ends with in which a case failed."""
        if not self.failed:
            return None
        return KernelInvalid(
            f"{self.tree}: {self.failed} of {len(self.cases)} cases failed", hint="they are listed above"
        )
