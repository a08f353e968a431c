"""Findings in short, and what areas say when there is nothing to test with."""

from __future__ import annotations

from ..core.errors import ReleaseInvalid
from ..stages import Release
from .assumption import Finding, Status
from .bench import Bench, Evidence

MINIATURE = "the sources are the miniature, which shows nothing about real ones"


def judged(identifier: str, holds: bool, reason: str, *evidence: Evidence) -> Finding:
    """Confirmed if it holds, else refuted."""
    status: Status = "confirmed" if holds else "refuted"
    return Finding(id=identifier, status=status, reason=reason, evidence=evidence)


def untested(identifier: str, reason: str, *evidence: Evidence) -> Finding:
    """Not tested, and why."""
    return Finding(id=identifier, status="not tested", reason=reason, evidence=evidence)


def require_release(bench: Bench) -> Release:
    """What the build area built. Raises `ReleaseInvalid`, which says why there is none."""
    if bench.release is None:
        why = f" ({bench.no_release})" if bench.no_release else ""
        raise ReleaseInvalid(f"no release was built{why}", hint="the findings on the build say why")
    return bench.release
