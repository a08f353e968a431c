"""An assumption of the toolkit about the machine that it runs on, what was found, and what it was found with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..core.records import record
from .bench import Bench, Evidence

Status: TypeAlias = Literal["confirmed", "refuted", "not tested"]


@record
class Assumption:
    """What the toolkit takes for granted. `id` is unique: launchd.kickstart-kills."""

    id: str
    statement: str
    needs: str = ""
    """what a machine must have so that it can be tested: macOS, a Metal GPU, root; empty if nothing"""


@record
class Finding:
    """What one run found of an assumption. `reason` says what was seen, or why it was not tested."""

    id: str
    status: Status
    reason: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Area:
    """Assumptions that are tested together.

    `examine` yields a finding as soon as there is one, in any order. What it yields nothing about was not tested: the
    run says so with the error that ended `examine`, or with the assumption's `needs`.
    """

    name: str
    assumptions: tuple[Assumption, ...]
    examine: Callable[[Bench], Iterator[Finding]]
