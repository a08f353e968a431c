"""What a run of the kernels comes to."""

from __future__ import annotations

from ..records import record


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
    """of attention: arithmetic per value of K and V that is decoded, everything in the kernel counted"""
    wrong: tuple[str, ...] = ()
    """what made it fail"""
    upstream: tuple[str, ...] = ()
    """what the harness found that upstream's own kernels do at the same places"""


@record
class Ran:
    """All cases of a tree."""

    tree: str
    cases: tuple[Case, ...]
    passed: int
    failed: int
