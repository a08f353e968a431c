"""The decision: five paths, each open or closed by a rule. The first open one is taken.

The rules are those of the requirements. A fork under two weeks old is built, one under four is cherry-picked. With an
older one, or conflicts beyond the time box, our series is used. Conflicts in the core KV cache or Metal close a path.
For a Mac without Metal kernels on any path it is MLX, else wait.
"""

from __future__ import annotations

from typing import Literal

from ...core.records import record
from ..fork.branch import Verdict as Age

Path = Literal["build the fork", "cherry-pick", "our series", "MLX", "wait"]
Confidence = Literal["high", "medium", "low"]
PATHS: tuple[Path, ...] = ("build the fork", "cherry-pick", "our series", "MLX", "wait")

BUILD_MINUTES = 13.0
"""a full build of llama-server, measured with 2 cores (docs/results/transcript.md)"""
ANCHOR_MINUTES = 10.0
"""minutes to give an edit of the series a new anchor and check it; a guess"""
_NEAR_DAYS = 2.0
_NEAR_SHARE = 0.5

MLX_NEEDS = (
    "MLX needs Apple silicon, Xcode's Metal toolchain to build Ollama's MLX engine, and the model as safetensors: that"
    " engine does not run GGUF files, so models are fetched or converted again"
)
MLX_COSTS = "it has no cache types: only the llama-server path of Ollama reads OLLAMA_KV_CACHE_TYPE"


@record
class ForkFacts:
    """The facts on a fork's best branch."""

    branch: str
    age: Age
    days: float
    turbo: bool
    """whether its own work is about TurboQuant"""
    merge_minutes: float
    """of the way onto the pin that takes the least work"""
    stop: tuple[str, ...]
    """areas whose conflicts close that way"""
    patches_on_fork: tuple[str, ...]
    """Ollama's patches that fail on the branch itself"""
    patches_on_merge: tuple[str, ...]
    """those that fail on the result of the way onto the pin"""
    metal: bool
    api_breaking: bool | None
    """None: not known"""


@record
class SeriesFacts:
    """The facts on our series."""

    ok: bool
    failing: int
    """edits that do not apply; 0 if the tree is not supported at all"""
    reason: str
    metal: bool


@record
class Facts:
    """All facts for the decision."""

    fork: ForkFacts | None
    series: SeriesFacts
    mac: bool
    """whether the result will run on a Mac, and so with Metal"""
    exact_pin: bool
    pin: str
    fresh_days: float
    stale_days: float
    conflict_box: float
    build_box: float


@record
class PathFacts:
    """One path: whether it is open, why, and the estimated minutes until there is a build to verify."""

    path: Path
    open: bool
    reasons: tuple[str, ...]
    minutes: float = 0.0


@record
class Decision:
    """What to do."""

    decision: Path
    confidence: Confidence
    reasons: tuple[str, ...]
    """of this path, then why earlier paths are closed, then what lowers the confidence"""
    next: Path
    """the alternative if this path exceeds its time box"""
    paths: tuple[PathFacts, ...]


def decide(facts: Facts) -> Decision:
    """Take the first open path, in the order of `PATHS`."""
    paths = (_build(facts), _pick(facts), _series(facts), _mlx(facts), _wait())
    taken = next(path for path in paths if path.open)
    after: Path = next((path.path for path in paths[paths.index(taken) + 1 :] if path.open), "wait")
    doubts = tuple(_doubts(facts, taken))
    before = [f"not {path.path}: {path.reasons[0]}" for path in paths[: paths.index(taken)]]
    box = f"time boxes: {facts.conflict_box:g} min of conflicts or {facts.build_box:g} min of failing builds end it"
    return Decision(
        decision=taken.path,
        confidence="high" if not doubts else "medium" if len(doubts) == 1 else "low",
        reasons=(
            *taken.reasons,
            *before,
            *doubts,
            *(() if taken.path in ("wait", "MLX") else (f"{box}, then: {after}",)),
        ),
        next=after,
        paths=paths,
    )


def _build(facts: Facts) -> PathFacts:
    fork = facts.fork
    closed = _unfit(facts)
    if fork and not closed:
        if fork.age != "fresh":
            closed.append(f"{fork.branch} is {fork.age}: {fork.days:.1f} days, fresh is under {facts.fresh_days:g}")
        if extensive := _extensive(fork, facts):
            closed.append(f"{extensive}, so it counts as very stale")
        if fork.patches_on_fork:
            closed.append(f"Ollama's {', '.join(fork.patches_on_fork)} would not apply to it")
        if fork.api_breaking:
            closed.append("it lacks symbols that Ollama uses (see the API gate)")
    if closed or fork is None:
        return PathFacts(path="build the fork", open=False, reasons=tuple(closed))
    return PathFacts(
        path="build the fork",
        open=True,
        reasons=(f"{fork.branch} is fresh ({fork.days:.1f} days), and Ollama's patches apply to it",),
        minutes=BUILD_MINUTES,
    )


def _pick(facts: Facts) -> PathFacts:
    fork = facts.fork
    closed = _unfit(facts)
    if fork and not closed:
        if fork.age == "very stale":
            closed.append(f"{fork.branch} is very stale: {fork.days:.1f} days, the limit is {facts.stale_days:g}")
        if extensive := _extensive(fork, facts):
            closed.append(extensive)
        if fork.patches_on_merge:
            closed.append(f"Ollama's {', '.join(fork.patches_on_merge)} would no longer apply")
    if closed or fork is None:
        return PathFacts(path="cherry-pick", open=False, reasons=tuple(closed))
    work = f"about {fork.merge_minutes:g} min of conflicts" if fork.merge_minutes else "without a conflict"
    return PathFacts(
        path="cherry-pick",
        open=True,
        reasons=(f"the work of {fork.branch} ({fork.age}) goes onto {facts.pin} {work}",),
        minutes=fork.merge_minutes + BUILD_MINUTES,
    )


def _series(facts: Facts) -> PathFacts:
    series, closed = facts.series, list[str]()
    mending = series.failing * ANCHOR_MINUTES
    if not series.ok and (not series.failing or mending > facts.conflict_box):
        closed.append(series.reason or f"{series.failing} of its edits do not apply to {facts.pin}")
    if facts.mac and not series.metal:
        closed.append("the series has no Metal kernels, and this is for a Mac")
    if closed:
        return PathFacts(path="our series", open=False, reasons=tuple(closed))
    how = f"the series applies to {facts.pin} unchanged"
    if not series.ok:
        how = f"{series.failing} edits of the series need a new anchor on {facts.pin}, about {mending:g} min"
    return PathFacts(path="our series", open=True, reasons=(how,), minutes=mending + BUILD_MINUTES)


def _mlx(facts: Facts) -> PathFacts:
    """For a Mac if no open path has Metal kernels. It has no cache types, so it comes after the paths that do."""
    if not facts.mac or facts.series.metal:
        why = "the series has Metal kernels" if facts.mac else "this is not for a Mac"
        return PathFacts(path="MLX", open=False, reasons=(why,))
    return PathFacts(
        path="MLX",
        open=True,
        reasons=("this is for a Mac, and no open path has Metal kernels", MLX_NEEDS, MLX_COSTS),
    )


def _wait() -> PathFacts:
    return PathFacts(
        path="wait",
        open=True,
        reasons=("check again when the pin, the fork or the series has changed",),
    )


def _unfit(facts: Facts) -> list[str]:
    """Why a fork of any age is unsuitable."""
    fork = facts.fork
    if fork is None:
        return ["no fork was named"]
    if fork.age == "unrelated":
        return [f"{fork.branch} shares no commit with llama.cpp"]
    if not fork.turbo:
        return [f"nothing of {fork.branch}'s own is about TurboQuant"]
    if facts.mac and not fork.metal:
        return [f"{fork.branch} has no Metal kernels for the types, and this is for a Mac"]
    return []


def _extensive(fork: ForkFacts, facts: Facts) -> str:
    """A message on conflicts that close a path; empty if there are none."""
    if fork.stop:
        return f"conflicts in {' and '.join(fork.stop)}"
    if fork.merge_minutes > facts.conflict_box:
        return f"about {fork.merge_minutes:g} min of conflicts, {facts.conflict_box:g} are allowed"
    return ""


def _doubts(facts: Facts, taken: PathFacts) -> list[str]:
    """What lowers the confidence in a path; two doubts make it `low`."""
    doubts = []
    if not facts.exact_pin:
        doubts.append(f"doubt: the pin itself is not in the mirror, {facts.pin} is used instead")
    fork = facts.fork
    if fork and fork.turbo and fork.age != "unrelated":
        if min(abs(fork.days - facts.fresh_days), abs(fork.days - facts.stale_days)) < _NEAR_DAYS:
            doubts.append(f"doubt: an age of {fork.days:.1f} days is near a threshold")
        if taken.path in ("build the fork", "cherry-pick"):
            if fork.api_breaking is None:
                doubts.append("doubt: the C surface could not be compared")
            if fork.api_breaking:
                doubts.append("doubt: the fork lacks symbols that Ollama uses; the merge must restore them")
            if fork.merge_minutes > (1 - _NEAR_SHARE) * facts.conflict_box:
                doubts.append("doubt: the estimate of conflicts is near its box")
    if taken.path == "our series" and not facts.series.ok:
        doubts.append("doubt: the series needs work before it renders")
    return doubts
