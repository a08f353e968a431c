"""Findings in short, and what areas say when there is nothing to test with."""

from __future__ import annotations

from ..core.errors import ReleaseInvalid
from ..stages import Release
from . import assumption
from .assumption import Finding
from .bench import Bench, Evidence

GPU = "macOS with a Metal GPU"
DISCOVERY_S = 30.0
"""after that Ollama gives up on a GPU"""
MINIATURE = "the sources are the miniature, which shows nothing about real ones"


def judged(identifier: str, holds: bool, reason: str, *evidence: Evidence) -> Finding:
    """Confirmed if it holds, else refuted."""
    return assumption.judged(holds, reason, *evidence).on(identifier)


def untested(identifier: str, reason: str, *evidence: Evidence) -> Finding:
    """Not tested, and why."""
    return assumption.untested(reason, *evidence).on(identifier)


def require_release(bench: Bench) -> Release:
    """What the build area built. Raises `ReleaseInvalid`, which says why there is none."""
    if bench.release is None:
        why = f" ({bench.no_release})" if bench.no_release else ""
        raise ReleaseInvalid(f"no release was built{why}", hint="the findings on the build say why")
    return bench.release
