"""Dry run of the series: a status for every edit, and for a failed one candidates and the commit that broke it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..core.console import Console
from ..core.errors import (
    AnchorMissing,
    BehaviourChanged,
    ContractBroken,
    EraNotServed,
    FetchFailed,
    PatchFailed,
    SeriesDoesNotApply,
    SeriesError,
    ToolchainError,
)
from ..core.records import record
from ..series import patched
from ..series.edit import Edit, candidates
from ..series.facts import Facts, read_facts
from ..series.manifest import LoadedPart, Series
from ..series.place import needle
from ..series.render import EditOutcome, outcome_of, read_text, render_target, result_of, served_parts, trees
from ..series.symbols import ABSENT, Symbol
from ..series.tree import Tree
from ..sources import eras
from ..stages import EditResult, Sources
from . import holding
from .behaviour import Behaviour
from .holding import Breach

_HISTORY = 400
"""number of versions of a file that are searched for the commit that broke an edit"""
_EXPLAINED = 12
"""number of breaches of the contract for which the commit is searched"""


@record
class Checked:
    """The whole dry run."""

    series_sha256: str
    llama_cpp: str
    ollama: str
    edits: tuple[EditResult, ...]
    era: str
    """of Ollama's tree; an unsupported era has no edits"""
    ok: bool
    symbols: int = 0
    """number of upstream's symbols that were compared with the contract"""
    contract: tuple[Breach, ...] = ()
    """symbols that the tree lacks or declares differently"""
    behaviour: Behaviour | None = None
    """what upstream's host code does with our types; None if edits or contract failed, or if not requested"""
    beyond: str = ""
    """a message if the tree is newer than the proven range"""
    reason: str = ""
    """why the series does not support the trees at all, or why the edits conflict"""

    def failure(self) -> ToolchainError | None:
        """`EraNotServed`, or `SeriesDoesNotApply` or a subclass of it; None for a dry run that succeeded."""
        if self.ok:
            return None
        era = eras.named(self.era)
        if era.unserved:
            return EraNotServed(self.reason, hint=era.hint)
        failing = [edit.name for edit in self.edits if edit.status in ("moved", "broken")]
        if self.behaviour and self.behaviour.wrong:
            return BehaviourChanged(
                f"the series applies, but llama.cpp handles our types wrongly: {self.behaviour.wrong[0]}",
                hint="the series needs another edit for this; --no-behaviour checks only edits and contract",
            )
        if self.contract and not failing and not self.reason:
            more = f"; and {len(self.contract) - 3} more" if len(self.contract) > 3 else ""
            return ContractBroken(
                f"{len(self.contract)} of {self.symbols} symbols that our sources use have changed: "
                + "; ".join(map(str, self.contract[:3]))
                + more,
                hint="adapt our sources, run ./inv series.contract on old and new trees, check again",
            )
        return SeriesDoesNotApply(
            f"{len(failing)} of {len(self.edits)} edits do not apply: {', '.join(failing)}" if failing else self.reason,
            hint="give the failing edits new anchors, run ./inv series.seal, and check again",
        )


Ask = Callable[[Tree, patched.Patched], Behaviour]


def check(series: Series, sources: Sources, console: Console, ask: Ask | None = None) -> Checked:
    """Try every edit on both trees without changing anything; never raises for a failed edit.

    `ask` examines the behaviour of the patched llama.cpp, once edits and contract are right.
    """
    results: list[EditResult] = []
    reasons: list[str] = []
    symbols, breaches = 0, list[Breach]()
    behaviour = None
    llama_cpp, ollama = trees(sources)
    with llama_cpp.repository, ollama.repository:
        try:
            facts = read_facts(series, (llama_cpp, ollama))
        except ToolchainError as error:
            facts, reasons = {}, [error.message]
        for tree in (llama_cpp, ollama):
            if not facts:
                break
            text = None
            try:
                with console.step(f"check the series against {tree.target} {tree.version}"):
                    outcomes, found = _check_tree(series, tree, facts)
                    results += found
                if tree.target == "llama.cpp" and series.contract:
                    with console.step("check the contract"):
                        text = patched.assemble(series, tree, facts, outcomes)
                        symbols, breaches = hold_contract(series, tree, text)
                held = not breaches and all(edit.status not in ("moved", "broken") for edit in results)
                if tree.target == "llama.cpp" and ask and held:
                    with console.step("run the host code"):
                        behaviour = ask(tree, text or patched.assemble(series, tree, facts, outcomes))
            except (SeriesError, PatchFailed) as error:
                reasons.append(error.message)
    failed = any(result.status in ("moved", "broken") for result in results)
    return Checked(
        series_sha256=series.sha256,
        llama_cpp=sources.llama_cpp.describe,
        ollama=sources.ollama.describe,
        edits=tuple(results),
        era=sources.era,
        ok=not failed and not reasons and not breaches and not (behaviour and behaviour.wrong),
        symbols=symbols,
        contract=tuple(breaches),
        behaviour=behaviour,
        beyond=series.proven.beyond(llama_cpp.version) if series.proven else "",
        reason="; ".join(reasons),
    )


def hold_contract(series: Series, tree: Tree, text: patched.Patched) -> tuple[int, list[Breach]]:
    """Number of symbols that our text uses on this tree, and those that the tree breaks, with the commits that did."""
    words = text.words()
    symbols = holding.asked(series.contract, words, tree.era)
    breaches = holding.hold(symbols, tree, words, [path for path in text.own if path not in text.added])
    known = {(symbol.kind, symbol.name): symbol for symbol in symbols}
    explained = [
        replace(breach, culprit=_changed(known[breach.kind, breach.name], tree)) for breach in breaches[:_EXPLAINED]
    ]
    return len(symbols), [*explained, *breaches[_EXPLAINED:]]


def _changed(symbol: Symbol, tree: Tree) -> str:
    """The commit after which a symbol was missing, or not in a form of the contract."""
    files = sorted({form.file for form in symbol.forms if form.form != ABSENT})
    # only the files where it was declared matter here, not where it moved to
    try:
        return _first_bad(tree, files, lambda older: holding.held(symbol, patched.reader(older)) is None)
    except FetchFailed:
        return "unknown: older versions of the file are not in this partial clone"


def _check_tree(series: Series, tree: Tree, facts: Facts) -> tuple[list[EditOutcome], list[EditResult]]:
    outcomes, results = list[EditOutcome](), list[EditResult]()
    for loaded in served_parts(series, tree):
        for edit in loaded.edits:
            outcome = outcome_of(edit, loaded, tree, facts)
            outcomes.append(outcome)
            result = result_of(outcome, tree)
            results.append(_explained(result, outcome, loaded, tree, facts) if outcome.error else result)
    if not any(outcome.error for outcome in outcomes):
        # what no single edit shows: added files that exist already, plain patches, overlapping edits
        render_target(series, tree.target, [(tree, outcomes)], facts, {})
    return outcomes, results


def _explained(result: EditResult, outcome: EditOutcome, loaded: LoadedPart, tree: Tree, facts: Facts) -> EditResult:
    """A failed edit with its candidates and the commit that broke it; `moved` when there is exactly one candidate."""
    found = _candidates(outcome.edit, tree)
    try:
        culprit = _culprit(outcome.edit, loaded, tree, facts)
    except FetchFailed:
        culprit = "unknown: older versions of the file are not in this partial clone"
    moved = bool(found) and isinstance(outcome.error, AnchorMissing)
    return replace(result, status="moved" if moved else "broken", candidates=tuple(found), culprit=culprit)


def _candidates(edit: Edit, tree: Tree) -> list[str]:
    text = read_text(tree, edit.file)
    if text is not None:
        near = candidates(edit, text)
        if near:
            return near
    return [line for path in _files_with(edit, tree) for line in candidates(edit, read_text(tree, path) or "", path)][
        :5
    ]


def _files_with(edit: Edit, tree: Tree) -> Iterator[str]:
    """Files of the same kind that contain the longest word of the anchor or scope, to find a moved file."""
    words = edit.anchor or edit.all_scopes[0]
    longest = max(words.replace("(", " ").split(), key=len)
    suffix = edit.file.rpartition(".")[2]
    try:
        found = tree.repository.git(
            "grep", "-l", "-F", "-I", "-e", longest, tree.commit, "--", f"*.{suffix}", failure=AnchorMissing
        )
    except AnchorMissing:
        return
    for line in found.splitlines()[:20]:
        path = tree.origin(line.partition(":")[2])
        if path and path != edit.file and needle(words).search(read_text(tree, path) or ""):
            yield path


def _culprit(edit: Edit, loaded: LoadedPart, tree: Tree, facts: Facts) -> str:
    """The commit after which the edit no longer applied: `id date subject`, or empty if it never did."""
    return _first_bad(tree, [edit.file], lambda older: outcome_of(edit, loaded, older, facts).status != "broken")


def _first_bad(tree: Tree, files: Sequence[str], holds: Callable[[Tree], bool]) -> str:
    """The commit after which something no longer held: `id date subject`, or empty if it never did.

    Goes back through the files' versions in doubling steps to one where it holds, then bisects.
    """
    log = tree.repository.git(
        *("log", f"--max-count={_HISTORY}", "--no-merges", "--format=%H%x09%cs%x09%s", tree.commit, "--"),
        *map(tree.place, files),
    )
    versions = [line.split("\t", 2) for line in log.splitlines()]

    def good_at(index: int) -> bool:
        return holds(replace(tree, commit=versions[index][0]))

    step, bad = 1, -1
    while True:
        probe = min(bad + step, len(versions) - 1)
        if probe <= bad:
            return ""
        if good_at(probe):
            break
        bad, step = probe, step * 2
    good = probe
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if good_at(middle) else (good, middle)
    if bad < 0:
        return ""
    commit, date, subject = versions[bad]
    return f"{commit[:12]} {date} {subject}"
