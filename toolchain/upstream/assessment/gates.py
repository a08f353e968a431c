"""Gates: each check's outcome for the decision, with its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any, Literal

from ...contract.check import Checked
from ...core.config import Config
from ...core.records import record
from ...host.machine import Machine
from ...models.memory.plan import MemoryPlan
from ...series.manifest import Series
from ...series.render import COMPAT_PATCH
from ..fork.branch import Branch
from ..fork.conflicts import Conflicts, MergeOutcome, PatchResult
from ..fork.freshness import Freshness
from ..fork.metal import MetalBranch
from ..surface import ApiDiff, told_apart

Status = Literal["pass", "warn", "fail", "unknown", "not asked"]
_GB = 1e9
_OLD_DAYS = 7.0
_METAL_FOLDER = "ggml/src/ggml-metal/"


@record
class Gate:
    """One check: its outcome in a sentence, and the figures behind it."""

    status: Status
    summary: str
    evidence: dict[str, Any] = field(default_factory=dict)


def freshness(found: Freshness, branch: Branch) -> Gate:
    """The age of the branch that would be built."""
    verdicts: dict[Any, Status] = {"fresh": "pass", "stale": "warn", "very stale": "fail"}
    base, merge_base = branch.base, branch.merge_base
    if base is None or merge_base is None:
        return _unrelated(found, branch)
    by = f" (its merge base is b{merge_base.build}, but its files are newer)" if base.by == "content" else ""
    return Gate(
        status=verdicts[branch.verdict],
        summary=(
            f"{branch.name} is {branch.verdict}: it is based on b{base.build} of {base.date[:10]}{by}, "
            f"{branch.age_days:.1f} days and {branch.behind} builds behind upstream's newest commit{_mirror(found)}"
        ),
        evidence={
            "branch": branch.name,
            "tip": branch.tip,
            "base": base.commit,
            "base_build": base.build,
            "merge_base": merge_base.commit,
            "age_days": branch.age_days,
            "newest_days": found.newest_days,
            "behind": branch.behind,
            "own_commits": len(branch.own),
            "last_own_commit": branch.activity.last,
            "files": branch.files,
            "inserted": branch.inserted,
            "deleted": branch.deleted,
            "areas": {change.area: [change.files, change.inserted, change.deleted] for change in branch.areas},
            "branches": len(found.branches),
            "untrue_tags": len(found.untrue_tags),
        },
    )


def _unrelated(found: Freshness, branch: Branch) -> Gate:
    near = branch.nearest
    shown = "; its files are not llama.cpp's either"
    if near:
        shown = (
            f"; its files are nearest to b{near.build} of {near.date[:10]} ({near.equal} of {near.files} the same), "
            f"{branch.age_days:.1f} days behind upstream's newest commit{_mirror(found)}"
        )
    return Gate(
        status="unknown",
        summary=f"{branch.name} shares no commit with llama.cpp{shown}",
        evidence={
            "branch": branch.name,
            "tip": branch.tip,
            "nearest": near.commit if near else "",
            "nearest_build": near.build if near else 0,
            "age_days": branch.age_days,
            "newest_days": found.newest_days,
        },
    )


def _mirror(found: Freshness) -> str:
    """How old what is known of upstream is, if that is more than days."""
    return f", which is itself {found.newest_days:.1f} days old here" if found.newest_days > _OLD_DAYS else ""


def conflicts(found: Conflicts) -> Gate:
    """Conflicts of bringing the branch onto the pin, by the way with the fewest."""
    best = found.best
    over = best.minutes > found.conflict_box
    status: Status = "fail" if best.stop or over else "warn" if best.conflicts or broken(best.patches) else "pass"
    places = sum(area.hunks for area in best.areas)
    summary = f"{best.how}: no conflict" if not best.conflicts else f"{best.how}: {places} places to resolve"
    if best.stop:
        summary += f", some in {' and '.join(best.stop)}, which closes the path"
    elif over:
        summary += f", about {best.minutes:g} min where {found.conflict_box:g} are allowed"
    if failing := broken(best.patches):
        summary += f"; {', '.join(failing)} would no longer apply"
    return Gate(
        status=status,
        summary=summary,
        evidence={
            "onto": found.onto,
            "ways": [_way(outcome) for outcome in found.outcomes],
            "own_commits": len(found.picks),
            "apply_alone": found.picks_alone,
            "apply_in_order": found.picks_in_order,
            "patches_broken_by_the_fork_itself": broken(found.as_it_stands),
            "basis": found.basis,
        },
    )


def _way(outcome: MergeOutcome) -> dict[str, Any]:
    return {
        "how": outcome.how,
        "base": outcome.base,
        "files": len({conflict.path for conflict in outcome.conflicts}),
        "places": sum(area.hunks for area in outcome.areas),
        "minutes": outcome.minutes,
        "stop": outcome.stop,
        "areas": {area.area: [area.files, area.hunks] for area in outcome.areas},
        "patches_broken": broken(outcome.patches),
    }


def broken(patches: Sequence[PatchResult]) -> list[str]:
    """Ollama's own patches that apply to the pin but not to the merge with the fork. Without the series, which is not
    needed beside a fork."""
    return [one.name for one in patches if one.on_outcome and not one.on_pin and one.name != COMPAT_PATCH]


def metal(found: Sequence[MetalBranch], name: str) -> Gate:
    """Metal kernels by name on the branch, and where else they are."""
    branch = next(one for one in found if one.branch == name)
    elsewhere = [one.branch for one in found if one.verdict == "kernels and dispatch" and one.branch != name]
    whole = branch.verdict == "kernels and dispatch"
    summary = f"{name}: {branch.verdict}"
    if branch.kernels:
        summary += f", {len(branch.kernels)} kernels for {', '.join(branch.dispatch) or 'no type'}"
    elif elsewhere:
        summary += f"; but {len(elsewhere)} other branches have kernels and dispatch, such as {elsewhere[0]}"
    if branch.gaps:
        summary += f"; gaps: {'; '.join(branch.gaps[:3])}"
    return Gate(
        status="warn" if whole and branch.gaps else "pass" if whole else "fail",
        summary=summary,
        evidence={
            "kernels": len(branch.kernels),
            "dispatch": branch.dispatch,
            "operations": branch.operations,
            "gaps": branch.gaps,
            "branches_with_kernels": [one.branch for one in found if one.verdict == "kernels and dispatch"],
        },
    )


def api(found: ApiDiff) -> Gate:
    """The C surface and the programs that Ollama uses, of the pin against the branch."""
    statuses: dict[Any, Status] = {"breaking": "fail", "changed but unused": "warn"}
    breaking = [
        f"{change.change} {change.kind} {change.name}" for change in found.changes if change.effect == "breaking"
    ]
    lost = [f"{use.kind} {use.text}" for use in told_apart(found) if use.in_old]
    shown = [*breaking, *lost]
    return Gate(
        status=statuses.get(found.verdict, "pass"),
        summary=f"{found.verdict}" + (f": {', '.join(shown[:4])}{' ...' if len(shown) > 4 else ''}" if shown else ""),
        evidence={"old": found.old, "new": found.new, "platform": found.platform, "breaking": breaking, "lost": lost},
    )


def series(found: Checked) -> Gate:
    """Our own series on the pinned trees."""
    failing = [edit for edit in found.edits if edit.status in ("moved", "broken")]
    holds = f"all {len(found.edits)} edits apply to llama.cpp {found.llama_cpp} and Ollama {found.ollama}"
    fails = f"{len(failing)} of {len(found.edits)} edits do not apply: {', '.join(edit.name for edit in failing)}"
    return Gate(
        status="pass" if found.ok else "fail",
        summary=holds if found.ok else found.reason or fails,
        evidence={
            "series": found.series_sha256,
            "edits": len(found.edits),
            "failing": [{"name": e.name, "file": e.file, "reason": e.reason, "by": e.culprit} for e in failing],
        },
    )


def has_metal(loaded: Series) -> bool:
    """Whether the series changes the Metal backend."""
    paths = [path for part in loaded.parts for path in (*part.files, *(edit.file for edit in part.edits))]
    return any(path.startswith(_METAL_FOLDER) for path in paths)


def memory(planned: MemoryPlan) -> Gate:
    """What context the model reaches, by cache type."""
    best = planned.recommendation
    contexts = {one.types: one.largest_context for one in planned.types if not one.obstacle}
    summary = f"{best.types}, up to {best.context} tokens: {best.reason}" if best.types else best.reason
    return Gate(
        status="pass" if best.reaches else "warn" if best.types else "fail",
        summary=summary,
        evidence={
            "model": planned.model,
            "weights": planned.weights,
            "budget": planned.budget,
            "largest_context": contexts,
            "obstacles": {one.types: one.obstacle for one in planned.types if one.obstacle},
        },
    )


def machine(found: Machine, config: Config) -> Gate:
    """This machine as a place to build and run."""
    mac = found.platform.startswith("Darwin")
    problems = []
    if found.free_disk < config.build.min_free_gb * _GB:
        problems.append(f"{found.free_disk / _GB:.1f} GB free, a build needs {config.build.min_free_gb:g}")
    if mac and not found.developer_tools:
        problems.append("no Xcode command line tools")
    problems += [
        f"port {port.number} is taken by {'Ollama ' + port.ollama if port.ollama else port.program or 'a program'}"
        for port in found.ports
        if port.number == config.deploy.port
    ]
    summary = f"{found.system or found.platform}, {found.chip or 'unknown chip'}, {found.ram / 2**30:.1f} GiB"
    return Gate(
        status="warn" if problems else "pass",
        summary=f"{summary}; {'; '.join(problems)}" if problems else summary,
        evidence={
            "ram": found.ram,
            "chip": found.chip,
            "gpu_family": found.gpu_family,
            "free_disk": found.free_disk,
            "developer_tools": found.developer_tools,
            "unknown": found.unknown,
        },
    )
