"""The release's own verification: without it no measurement means anything."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import RecordError
from ...core.records import read
from ...proofs import Verification
from ..result import TestResult
from ..trial import Trial

NAME = "checklist"


def measure(trial: Trial) -> TestResult:
    """What `verify` found of these very files."""
    plan = trial.plan
    if not plan.release:
        return TestResult(test=NAME, verdict="undecided", summary="the endpoints' release is unknown")
    try:
        found = read(_kept(trial), Verification)
    except RecordError:
        return TestResult(
            test=NAME, verdict="undecided", summary=f"{plan.release} was not verified: ./inv verify --release ID"
        )
    if found.content_sha256 != plan.content_sha256:
        return TestResult(test=NAME, verdict="undecided", summary=f"{plan.release} was changed since its verification")
    if not found.ok:
        return TestResult(test=NAME, verdict="broken", summary=f"the verification of {plan.release} failed")
    proven = f"{len(found.proofs)} proofs, {len(found.checklist)} verdicts"
    return TestResult(test=NAME, verdict="passed", summary=f"verified: {proven}")


def _kept(trial: Trial) -> Path:
    """The verification in the workspace, else in the one whose releases/ the release lies in."""
    ours = trial.workspace / "runs" / trial.plan.release / "verification.json"
    directory = trial.plan.release_dir
    if ours.is_file() or directory is None:
        return ours
    return directory.parents[1] / "runs" / trial.plan.release / "verification.json"
