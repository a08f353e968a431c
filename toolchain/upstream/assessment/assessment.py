"""All checks in one run (sources, series, fork, C surface, machine), and the decision."""

from __future__ import annotations

import sys
import time
from typing import Literal

from ... import pipeline
from ...contract.check import Checked
from ...core import extras
from ...core.errors import ConfigError, ToolchainError
from ...core.records import record
from ...core.run import Run
from ...host import machine
from ...models.memory.planning import plan_for
from ...series.manifest import Series, load_series
from ...sources import eras
from ...sources.mirror import ensure_contents
from ...stages import Sources
from .. import surface as api
from ..fork import inquiry as forks
from ..fork.branch import Branch
from ..fork.conflicts import Conflicts
from ..fork.freshness import Freshness
from ..fork.join import Joined
from ..fork.metal import MetalBranch
from . import gates
from .decision import Confidence, Decision, Facts, ForkFacts, Path, PathFacts, SeriesFacts, decide
from .gates import Gate

Platform = Literal["macos", "linux"]


@record
class Assessment:
    """The page: a decision, why, and the gates with their evidence."""

    decision: Path
    confidence: Confidence
    reasons: tuple[str, ...]
    next: Path
    """the alternative if the path exceeds its time box"""
    gates: dict[str, Gate]
    paths: tuple[PathFacts, ...]
    ollama: str
    llama_cpp: str
    pin: str
    """the build that Ollama names"""
    fork: str
    branch: str
    platform: Platform
    now: str
    branches: tuple[Branch, ...] = ()
    metal: tuple[MetalBranch, ...] = ()
    conflicts: Conflicts | None = None
    seconds: float


def assess(
    run: Run, branch: str = "", now: str = "", platform: str = "", model: str = "", ram: float = 0.0
) -> Assessment:
    """Run every check and decide.

    `branch` is a branch of the fork (empty: the most promising one), `now` the date for ages, `platform` the result's
    platform, macos or linux (empty: this machine's), `model` a model whose contexts are planned for this machine or for
    a Mac with `ram` GiB. Without a configured fork, its gates are "not asked".
    Raises `MissingExtra` for a fork, the errors of `pipeline.prepare` and `fork.request.joined`; a check that fails to
    run is a gate `unknown`.
    """
    started = time.monotonic()
    if run.config.fork.origin:
        extras.require("clang", "the assessment of a fork")
    moment = forks.moment(now)
    target = _platform(platform)
    sources = pipeline.prepare(run)
    series = load_series(run)
    checked = pipeline.check_series(run, sources)
    found = {"pin": _pin(sources), "series": gates.series(checked), "machine": _machine(run)}
    if model:
        found["memory"] = gates.memory(plan_for(run, model, ram=ram))
    look: _Look | None = None
    if run.config.fork.origin:
        with forks.joined(run) as both:
            fresh = forks.freshness(run, both, (branch,) if branch else (), moment)
            look = _Look(run, both, fresh, sources, series)
        found |= look.gates
    else:
        asked = Gate(status="not asked", summary="no fork was named")
        found |= dict.fromkeys(("freshness", "conflicts", "metal", "api"), asked)
    decision = _decided(run, sources, look, checked, series, target)
    return Assessment(
        decision=decision.decision,
        confidence=decision.confidence,
        reasons=decision.reasons,
        next=decision.next,
        gates=found,
        paths=decision.paths,
        ollama=f"{sources.ollama.describe} {sources.ollama.commit}",
        llama_cpp=f"{sources.llama_cpp.describe} {sources.llama_cpp.commit}",
        pin=sources.pin.name,
        fork=run.config.fork.origin,
        branch=look.branch.name if look else "",
        platform=target,
        now=moment.isoformat(timespec="seconds"),
        branches=look.fresh.branches if look else (),
        metal=tuple(look.metal) if look else (),
        conflicts=look.conflicts if look else None,
        seconds=round(time.monotonic() - started, 2),
    )


class _Look:
    """The fork's checks on one branch. Each may fail separately."""

    def __init__(self, run: Run, both: Joined, fresh: Freshness, sources: Sources, series: Series) -> None:
        self.fresh, self.branch = fresh, fresh.branches[0]
        self.gates = {"freshness": gates.freshness(fresh, self.branch)}
        self.conflicts: Conflicts | None = None
        self.api_breaking: bool | None = None
        self.metal = forks.audit(run, both, ())
        self.gates["metal"] = gates.metal(self.metal, self.branch.name)
        try:
            self.conflicts = forks.conflicts(run, both, self.branch, sources, series)
            self.gates["conflicts"] = gates.conflicts(self.conflicts)
        except ToolchainError as error:  # as without a common ancestor
            self.gates["conflicts"] = Gate(status="unknown", summary=error.message)
        try:
            if both.mirrored:
                ensure_contents(both.fork, self.branch.tip, run.console)
            compared = api.compare(run, "", f"{both.fork.git_dir}@{self.branch.tip}")
            self.gates["api"] = gates.api(compared)
            self.api_breaking = compared.verdict == "breaking"
        except ToolchainError as error:
            self.gates["api"] = Gate(status="unknown", summary=str(error))

    def facts(self) -> ForkFacts:
        """The facts for the decision. Unknown conflicts count as beyond any time box."""
        best = self.conflicts.best if self.conflicts else None
        audited = next(one for one in self.metal if one.branch == self.branch.name)
        return ForkFacts(
            branch=self.branch.name,
            age=self.branch.verdict,
            days=self.branch.age_days,
            turbo=self.branch.turbo,
            merge_minutes=best.minutes if best else float("inf"),
            stop=best.stop if best else (),
            patches_on_fork=tuple(gates.broken(self.conflicts.as_it_stands)) if self.conflicts else (),
            patches_on_merge=tuple(gates.broken(best.patches)) if best else (),
            metal=audited.verdict == "kernels and dispatch",
            api_breaking=self.api_breaking,
        )


def _decided(
    run: Run, sources: Sources, look: _Look | None, checked: Checked, series: Series, target: Platform
) -> Decision:
    settings = run.config.fork
    failing = [edit for edit in checked.edits if edit.status in ("moved", "broken")]
    return decide(
        Facts(
            fork=look.facts() if look else None,
            series=SeriesFacts(
                ok=checked.ok,
                failing=len(failing),
                reason=checked.reason,
                metal=gates.has_metal(series),
            ),
            mac=target == "macos",
            exact_pin=sources.pin.exact,
            pin=sources.llama_cpp.describe,
            fresh_days=settings.fresh_days,
            stale_days=settings.stale_days,
            conflict_box=settings.conflict_minutes,
            build_box=settings.build_minutes,
        )
    )


def _pin(sources: Sources) -> Gate:
    pin = sources.pin
    evidence = {"name": pin.name, "commit": pin.commit, "build": pin.build, "era": sources.era}
    if eras.of(sources).unserved:
        summary = f"{sources.ollama.describe} belongs to the {sources.era} era"
        return Gate(status="fail", summary=summary, evidence=evidence)
    if not pin.exact:
        missing = f"{pin.name} is not in the mirror; b{pin.build} is used instead"
        return Gate(status="warn", summary=missing, evidence=evidence)
    return Gate(status="pass", summary=f"{pin.name} is {pin.commit[:12]}, build {pin.build}", evidence=evidence)


def _machine(run: Run) -> Gate:
    try:
        return gates.machine(machine.look(run.config), run.config)
    except ToolchainError as error:
        return Gate(status="unknown", summary=str(error))


def _platform(name: str) -> Platform:
    if name in ("macos", "linux"):
        return "macos" if name == "macos" else "linux"
    if name:
        raise ConfigError(f"--platform {name}: unknown", hint="macos or linux; empty: this machine's")
    return "macos" if sys.platform == "darwin" else "linux"
