"""What Ollama's own engine makes of the rotation, where there is no llama-server to show it: the tests that the series
puts into the tree, run in the scratch tree that the release was built from.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec

from ..build import plan_of
from ..build.steps import BuildPlan, test_go
from ..core import records
from ..core.config import Config
from ..core.errors import RecordError, VerificationFailed
from ..core.records import record
from ..sources import locked
from ..sources.scratch import require_unchanged
from ..stages import Release, Scratch, Sources

PACKAGE = "ml/nn"
ROTATION, ATTENTION = "TestTurboQuantRotation", "TestTurboQuantAttention"
HEAD_SIZE = 128
"""the heads whose figures are shown; others are tested as well"""
_TIMEOUT_S = 3600.0
"""minutes where Go's cache has what the build compiled, up to an hour where it has not"""
_SAID = re.compile(r"\s+\S+\.go:\d+: (.+)")
_FIGURE = re.compile(r".+: [\d.]+")
_SHOWN = 300


@record
class EngineTest:
    """A test of the tree that ran: its figures, and what it found wrong."""

    name: str
    ok: bool
    figures: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


@record
class _Event:
    """A line of `go test -json`."""

    Action: str
    Test: str = ""
    Output: str = ""


def examine(release: Release, kept: Path, config: Config, *, workspace: Path) -> tuple[EngineTest, ...]:
    """Run the tests in the tree that the records in the folder `kept` name.

    Raises what says that they could not be asked: `RecordError` without these records, `DirtyScratch` for a tree that
    is gone or another one by now, the errors of `build.plan_of`, and `VerificationFailed` when go ran no test.
    """
    try:
        scratch, sources = records.read(kept / "scratch.json", Scratch), records.read(kept / "sources.json", Sources)
    except RecordError as error:
        raise RecordError(f"the tree of {release.id} is unknown: {error.message}", hint="./inv build") from error
    require_unchanged(scratch.ollama, release.ollama_commit)
    with locked(scratch.root):
        plan = plan_of(scratch, sources, config, workspace)
        return tuple(_outcomes(plan))


def _outcomes(plan: BuildPlan) -> list[EngineTest]:
    asked = (ROTATION, ATTENTION)
    output = test_go(plan, PACKAGE, asked, _TIMEOUT_S)
    found = [one for name in asked if (one := _outcome(name, output)) is not None]
    if len(found) < len(asked):
        lines = [line for line in output.splitlines() if line.strip()]
        tail = _plain(lines[-1]) if lines else "it printed nothing"
        raise VerificationFailed(
            f"go test ./{PACKAGE} ran {len(found)} of {len(asked)} tests: {tail[:_SHOWN]} (log: {plan.log('test')})"
        )
    return found


def _outcome(name: str, output: str) -> EngineTest | None:
    """What became of a test; None where it was skipped or did not run."""
    events = [event for line in output.splitlines() if (event := _event(line)) is not None and event.Test == name]
    ended: Literal["pass", "fail", ""] = ""
    said = []
    for event in events:
        if event.Action in ("pass", "fail"):
            ended = "pass" if event.Action == "pass" else "fail"
        elif event.Action == "output" and (line := _SAID.fullmatch(event.Output.rstrip("\n"))):
            said.append(line[1])
    if not ended:
        return None
    figures = tuple(line for line in said if _FIGURE.fullmatch(line))
    wrong = tuple(line for line in said if line not in figures)
    return EngineTest(name=name, ok=ended == "pass", figures=figures, wrong=wrong if ended == "fail" else ())


def _event(line: str) -> _Event | None:
    try:
        return msgspec.json.decode(line, type=_Event)
    except records.UNREADABLE:
        return None


def _plain(line: str) -> str:
    event = _event(line)
    return (event.Output or event.Action).strip() if event else line.strip()
