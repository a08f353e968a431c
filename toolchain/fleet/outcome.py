"""What is known of each host: the records of a rollout."""

from __future__ import annotations

from typing import Literal

from ..core.records import record

Outcome = Literal["waiting", "in-flight", "unchanged", "changed", "failed", "unreachable", "rejected"]
Revert = Literal["", "reverted", "by-tq", "nothing-before", "failed", "unreachable"]


@record
class Change:
    """A difference between a host and its desired state."""

    what: str
    is_: str = ""
    wanted: str = ""


@record
class Facts:
    """What `tq status` said."""

    release: str = ""
    """empty: nothing is installed"""
    parent: str = ""
    version: str = ""
    healthy: bool | None = None
    gpu: bool | None = None
    result: str = ""
    message: str = ""


@record
class HostResult:
    """A host in a rollout, as far as it got."""

    name: str
    wave: int
    group: str = ""
    outcome: Outcome = "waiting"
    release: str = ""
    """what its plan says that it gets"""
    before: Facts | None = None
    """before the rollout touched it"""
    after: Facts | None = None
    touched: bool = False
    """whether `tq apply` was started on it"""
    applied: bool = False
    """whether it ended well"""
    error: str = ""
    """one word, by which two hosts have the same error"""
    message: str = ""
    hint: str = ""
    changes: tuple[Change, ...] = ()
    tokens_per_second: float = 0.0
    began: str = ""
    seconds: float = 0.0
    attempts: int = 0
    revert: Revert = ""
    revert_message: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do for it, apart from a later attempt to reach it."""
        return self.outcome not in ("waiting", "in-flight")
