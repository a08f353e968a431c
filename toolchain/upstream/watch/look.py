"""What changed since the last look: in both repositories, at the forge, and for the series."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from ...contract.check import check
from ...core.console import Console
from ...core.errors import RecordError, ToolchainError
from ...core.records import read, record, write
from ...core.run import Run
from ...series.lexing import mask
from ...series.manifest import Series
from ...series.place import find_scopes
from ...sources import Commit, Repository, eras, open_origin, pin, recognise, release_name, versions
from ...sources.mirror import ensure_contents, is_url
from ...stages import Checkout, Pin, Sources, Target
from .forge import Asked, Item, ask
from .symbols import Touch, touches, watched

EXIT_BASE = 80
"""exit codes of a look with news: this plus the bits below"""
EXIT_NEWS, EXIT_RIVAL, EXIT_BROKEN = 1, 2, 4

_TYPES = "ggml/include/ggml.h"
_ARGUMENTS = "common/arg.cpp"
_TYPE = re.compile(r"\bGGML_TYPE_(\w+)")
_RIVAL = re.compile(r"TURBO|POLAR|QJL|TBQ|TRELLIS|^T[CQ]\d|_KT$", re.IGNORECASE)
_SHOWN, _FEW = 40, 3


@record
class Seen:
    """One repository at the time of a look."""

    origin: str
    head: str
    tags: dict[str, str]
    types: tuple[str, ...] = ()
    """data types of ggml"""
    cache_types: tuple[str, ...] = ()
    """those that llama-server supports for a cache"""
    pin: str = ""
    """the llama.cpp that Ollama names"""


@record
class LookState:
    """The last look."""

    at: str
    llama_cpp: Seen
    ollama: Seen
    items: tuple[str, ...] = ()
    """keys of the forge's releases and pull requests"""


@record
class Moved:
    """What changed in one repository."""

    target: Target
    old: str
    new: str
    describe: str
    commits: int
    rewritten: bool
    """the old head is no ancestor of the new one"""
    tags: tuple[str, ...]
    moved_tags: tuple[str, ...]
    releases: tuple[str, ...] = ()
    """new versions among the tags, newest first; llama.cpp's with their builds, as in v0.3.0 (b10700)"""
    touching: tuple[Commit, ...]
    """newest commits that changed a file that the series edits"""
    symbols: tuple[Touch, ...] = ()
    """commits that changed what the series' own sources use: declarations that its contract lists"""
    worded: tuple[Commit, ...] = ()
    """newest commits whose title holds one of `watch.titles`"""
    pin: tuple[str, str] = ("", "")
    types: tuple[str, ...] = ()
    cache_types: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    """new types whose names speak of rotation, trellises or TurboQuant itself"""


@record
class Holding:
    """Whether the series applies to one pair of heads."""

    what: str
    holds: bool
    failing: tuple[str, ...]
    """edits, and symbols of the contract"""
    reason: str


@record
class UpstreamLook:
    """The report of one look."""

    since: str
    """when the last look was; empty for the first"""
    moved: tuple[Moved, ...]
    holding: tuple[Holding, ...]
    items: tuple[Item, ...]
    """releases and pull requests that are new since the last look"""
    notes: tuple[str, ...]
    exit_code: int


def look(run: Run, series: Series, *, keep: bool = False) -> UpstreamLook:
    """Compare both repositories and the forge with the last look, and check the series on both heads.

    The new state is stored in the workspace, unless `keep` is set. Raises the errors of unreadable repositories; errors
    of the forge are only notes.
    """
    settings, path = run.config.sources, run.workspace / "watch" / "state.json"
    last, notes = _last(path)
    with (
        open_origin("llama.cpp", settings.llama_cpp, run.config, run.console) as llama_cpp,
        open_origin("ollama", settings.ollama, run.config, run.console) as ollama,
    ):
        mainline = pin.builds(llama_cpp)
        heads = {"llama.cpp": mainline[max(mainline)], "ollama": ollama.resolve("HEAD")}
        for origin, repository, head in (
            (settings.llama_cpp, llama_cpp, heads["llama.cpp"]),
            (settings.ollama, ollama, heads["ollama"]),
        ):
            if is_url(origin):
                ensure_contents(repository, head, run.console)
        now = LookState(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            llama_cpp=_seen("llama.cpp", settings.llama_cpp, llama_cpp, heads["llama.cpp"]),
            ollama=_seen("ollama", settings.ollama, ollama, heads["ollama"]),
        )
        moved, titles = [], run.config.watch.titles
        if last is not None:
            moved = [
                _moved("llama.cpp", last.llama_cpp, now.llama_cpp, llama_cpp, f"b{max(mainline)}", series, titles),
                _moved(
                    "ollama", last.ollama, now.ollama, ollama, release_name(ollama, now.ollama.head), series, titles
                ),
            ]
        holding = _holding(run, series, llama_cpp, ollama, mainline, now)
    asked = _forge(run)
    known = last.items if last else tuple(item.key for item in asked.items)
    fresh = tuple(item for item in asked.items if item.key not in known)
    if not keep:
        every = tuple(sorted({*known, *(item.key for item in asked.items)}))
        write(path, replace(now, items=every))
    moved = [one for one in moved if _is_news(one)]
    bits = EXIT_NEWS * bool(moved or fresh) | EXIT_RIVAL * any(one.rivals or one.cache_types for one in moved)
    bits |= EXIT_BROKEN * any(not one.holds for one in holding)
    return UpstreamLook(
        since=last.at if last else "",
        moved=tuple(moved),
        holding=holding,
        items=fresh,
        notes=(*notes, *asked.notes),
        exit_code=EXIT_BASE | bits if bits else 0,
    )


def _last(path: Path) -> tuple[LookState | None, list[str]]:
    if not path.is_file():
        return None, []
    try:
        return read(path, LookState), []
    except RecordError as error:
        return None, [f"{error.message}: treated as a first look"]


def _forge(run: Run) -> Asked:
    settings = run.config.watch
    if run.config.sources.offline or not settings.api:
        return Asked(items=(), notes=("the forge was not queried",))
    repositories = tuple(name for name in (settings.llama_cpp, settings.ollama) if name)
    cache = run.workspace / "watch" / "forge.json"
    return ask(settings.api, repositories, settings.words, cache, titles=settings.titles)


def _seen(target: Target, origin: str, repository: Repository, head: str) -> Seen:
    listed = repository.git("for-each-ref", "--format=%(refname:strip=2)%09%(objectname)", "refs/tags")
    tags = dict(line.split("\t") for line in listed.splitlines())
    if target == "ollama":
        try:
            return Seen(origin=origin, head=head, tags=tags, pin=recognise(repository, head).pin)
        except ToolchainError:
            return Seen(origin=origin, head=head, tags=tags)
    return Seen(
        origin=origin,
        head=head,
        tags=tags,
        types=_names(repository, head, _TYPES, "enum ggml_type"),
        cache_types=_names(repository, head, _ARGUMENTS, "std::vector<ggml_type> kv_cache_types"),
    )


def _names(repository: Repository, commit: str, path: str, scope: str) -> tuple[str, ...]:
    text = (repository.read_blob(commit, path) or b"").decode(errors="replace")
    code = mask(text, "c", strings=True)
    found = [name for span in find_scopes(text, "c", scope) for name in _TYPE.findall(code[span.start : span.end])]
    return tuple(dict.fromkeys(name for name in found if name != "COUNT"))


def _moved(
    target: Target,
    old: Seen,
    new: Seen,
    repository: Repository,
    describe: str,
    series: Series,
    titles: Sequence[str],
) -> Moved:
    known = repository.succeeds("cat-file", "-e", f"{old.head}^{{commit}}")
    ancestor = known and repository.succeeds("merge-base", "--is-ancestor", old.head, new.head)
    span = f"{old.head}..{new.head}" if known else ""
    fresh = [name for name in new.types if name not in old.types]
    return Moved(
        target=target,
        old=old.head,
        new=new.head,
        describe=describe,
        commits=repository.count(span) if span else 0,
        rewritten=not ancestor,
        tags=tuple(name for name in new.tags if name not in old.tags),
        moved_tags=tuple(name for name, commit in new.tags.items() if old.tags.get(name, commit) != commit),
        releases=_releases(target, old, repository),
        touching=_touching(repository, span, target, series) if span else (),
        symbols=touches(repository, span, watched(series)) if span and target == "llama.cpp" else (),
        worded=_worded(repository, span, titles) if span else (),
        pin=(old.pin, new.pin) if old.pin != new.pin else ("", ""),
        types=tuple(fresh),
        cache_types=tuple(name for name in new.cache_types if name not in old.cache_types),
        rivals=tuple(name for name in fresh if _RIVAL.search(name)),
    )


def _releases(target: Target, old: Seen, repository: Repository) -> tuple[str, ...]:
    fresh = [tag for tag in versions.releases(repository).values() if tag.name not in old.tags]
    if target == "ollama":
        return tuple(tag.name for tag in fresh)
    return tuple(f"{tag.name} (b{repository.count(tag.commit)})" for tag in fresh)


def _is_news(moved: Moved) -> bool:
    return bool(moved.old != moved.new or moved.tags or moved.moved_tags)


def _touching(repository: Repository, span: str, target: Target, series: Series) -> tuple[Commit, ...]:
    mine = [loaded for loaded in series.parts if loaded.part.target == target]
    files = {edit.file for loaded in mine for edit in loaded.edits}
    files |= {fact.file for fact in series.facts.values() if fact.target == target}
    if not files:
        return ()
    return _commits(repository, span, "--", *sorted(files))


def _worded(repository: Repository, span: str, titles: Sequence[str]) -> tuple[Commit, ...]:
    """Whole words of the titles; in English, KV cache and kv-cache are the same."""
    wanted = [re.compile(rf"\b{'[ _-]?'.join(map(re.escape, title.split()))}\b", re.IGNORECASE) for title in titles]
    found = (one for one in _commits(repository, span) if any(word.search(one.subject) for word in wanted))
    return tuple(islice(found, _SHOWN))


def _commits(repository: Repository, span: str, *paths: str) -> tuple[Commit, ...]:
    most = (f"--max-count={_SHOWN}",) if paths else ()
    log = repository.git("log", "--no-merges", *most, "--format=%H%x00%cI%x00%s", span, *paths)
    lines = [line.split("\0", 2) for line in log.splitlines()]
    return tuple(Commit(id=commit, date=date[:10], subject=subject) for commit, date, subject in lines)


def _holding(
    run: Run, series: Series, llama_cpp: Repository, ollama: Repository, mainline: dict[int, str], now: LookState
) -> tuple[Holding, ...]:
    """The newest Ollama with what it pins, and with the newest llama.cpp."""
    newest = max(mainline)
    pairs = {mainline[newest]: (_pin(newest, mainline), "the newest Ollama and llama.cpp")}
    served = pin.find(llama_cpp, mainline, now.ollama.pin) if now.ollama.pin else None
    if served:
        stands = "" if served.exact else f" (b{served.build} used instead)"
        pairs[served.commit] = (served, f"the newest Ollama and its pin {now.ollama.pin}{stands}")
    return tuple(
        _held(run.console, series, llama_cpp, ollama, served, now, what)
        for served, what in sorted(pairs.values(), key=lambda pair: pair[0].build)
    )


def _pin(build: int, mainline: dict[int, str]) -> Pin:
    return Pin(name=f"b{build}", commit=mainline[build], build=build, exact=True)


def _held(
    console: Console, series: Series, llama_cpp: Repository, ollama: Repository, served: Pin, now: LookState, what: str
) -> Holding:
    describe = release_name(ollama, now.ollama.head)
    try:
        era = recognise(ollama, now.ollama.head).era
        sources = Sources(
            ollama=_source("ollama", now.ollama.origin, ollama, now.ollama.head, describe),
            llama_cpp=_source("llama.cpp", now.llama_cpp.origin, llama_cpp, served.commit, pin.describe(served)),
            era=era.name,
            pin=served,
        )
        if era.unserved:
            return Holding(what=what, holds=False, failing=(), reason=eras.sentence(sources))
        checked = check(series, sources, console)
    except ToolchainError as error:
        return Holding(what=what, holds=False, failing=(), reason=error.message)
    failing = [edit for edit in checked.edits if edit.status in ("moved", "broken")]
    reasons = [f"{edit.name}: {edit.culprit or edit.reason.splitlines()[0]}" for edit in failing]
    reasons += [f"{breach}{f': {breach.culprit}' if breach.culprit else ''}" for breach in checked.contract[:_FEW]]
    if len(checked.contract) > _FEW:
        reasons.append(f"and {len(checked.contract) - _FEW} more of the contract")
    return Holding(
        what=what,
        holds=checked.ok,
        failing=(*(edit.name for edit in failing), *(breach.name for breach in checked.contract)),
        reason="; ".join(filter(None, [checked.reason, *reasons])),
    )


def _source(target: Target, origin: str, repository: Repository, commit: str, describe: str) -> Checkout:
    return Checkout(target=target, origin=origin, git_dir=repository.git_dir, commit=commit, describe=describe)
