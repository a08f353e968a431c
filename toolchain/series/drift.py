"""The series on a range of upstream: where it applies, where it stops, and by which commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from ..core.console import Console
from ..core.errors import ConfigError, ToolchainError, UnknownLayout, UnknownRevision
from ..core.records import record
from ..core.run import Run
from ..sources import Layout, Repository, open_origin, pin, recognise
from ..sources.releases import releases
from ..stages import Target
from .manifest import Series, serves
from .outcomes import EditState, JudgeJob, Memory, jobs_on
from .render import ollama_version, served_parts
from .tree import Tree

SINCE = "b8619"
"""the first build with a rotated cache"""
POINTS = 75
_T = TypeVar("_T")


@record
class Point:
    """One upstream tree: a build of llama.cpp, or a release of Ollama."""

    name: str
    commit: str
    date: str
    failing: tuple[str, ...]
    """edits that do not apply"""
    reason: str = ""
    """why the series does not support the tree at all"""

    @property
    def holds(self) -> bool:
        """Whether the series applies without changes."""
        return not self.failing and not self.reason


@record
class EditDrift:
    """One edit over all points: on how many it applies, of how many."""

    name: str
    file: str
    held: int
    points: int
    elsewhere: tuple[str, ...] = ()
    """points of another era, where the series does without the edit"""


@record
class Turn:
    """A commit at which an edit stops to apply, or starts to."""

    edit: str
    holds: bool
    """whether it applies from this commit on"""
    point: str
    """the first point with this commit"""
    commit: str
    date: str
    subject: str
    reason: str
    """why the edit does not apply on the other side"""


@record
class Survey:
    """All points of one upstream, oldest first."""

    target: Target
    points: tuple[Point, ...]
    edits: tuple[EditDrift, ...]
    turns: tuple[Turn, ...]
    held: int
    """points where the whole series applies"""


@record
class Drift:
    """Both upstreams."""

    series_sha256: str
    surveys: tuple[Survey, ...]
    judged: int
    """contents judged in this run; the others were known"""
    seconds: float


@record
class _Stop:
    """A point before it is judged: its trees, the one under test last."""

    name: str
    trees: tuple[Tree, ...]

    @property
    def tested(self) -> tuple[Tree, ...]:
        """The trees under test: the last one, and those that it contains."""
        return tuple(tree for tree in self.trees if tree.repository is self.trees[-1].repository)

    def at(self, commit: str) -> _Stop:
        """The same with another commit of the trees under test."""
        here = [replace(tree, commit=commit) if tree in self.tested else tree for tree in self.trees]
        return replace(self, trees=tuple(here))

    def jobs(self, series: Series) -> list[JudgeJob]:
        """The jobs of all trees under test. Raises the errors of `jobs_on`."""
        rest = [tree for tree in self.trees if tree not in self.tested]
        tested = self.tested
        return [
            job
            for tree in tested
            for job in jobs_on(series, (*rest, *(other for other in tested if other is not tree), tree))
        ]


def survey(run: Run, series: Series, since: str, until: str, every: int, *, candidates: bool = False) -> Drift:
    """Try the series on builds of llama.cpp from `since` to `until`, and on Ollama's releases.

    `every` is a number of builds; 0 spreads about 75 points evenly. `candidates` includes Ollama's release candidates.
    Raises `ConfigError` for an empty range.
    """
    memory = Memory(run.workspace / "drift" / "judged.json")
    settings, console = run.config.sources, run.console
    with console.step("test the series on the range") as step:
        llama_cpp = open_origin("llama.cpp", settings.llama_cpp, run.config, console)
        ollama = open_origin("ollama", settings.ollama, run.config, console)
        with llama_cpp, ollama:
            mainline = pin.builds(llama_cpp)
            builds = _builds(llama_cpp, mainline, since, until, every)
            stops = [_build(llama_cpp, mainline[build], build) for build in builds]
            releases = _releases(series, ollama, llama_cpp, mainline, candidates)
            surveys = (
                _survey("llama.cpp", series, stops, memory, console),
                _survey("ollama", series, releases, memory, console),
            )
            made = memory.made
    return Drift(series_sha256=series.sha256, surveys=surveys, judged=made, seconds=step.seconds)


def spread(repository: Repository, since: str, until: str, every: int, count: int) -> dict[int, str]:
    """Commits by build from `since` to `until`, inclusive: one for `every` builds, or with 0 `count` of them.

    Raises `ConfigError` for an empty range.
    """
    mainline = pin.builds(repository)
    chosen = _builds(repository, mainline, since, until, every or 1)
    return {build: mainline[build] for build in (chosen if every else evenly(chosen, count))}


def _build(repository: Repository, commit: str, build: int) -> _Stop:
    tree = Tree(target="llama.cpp", repository=repository, commit=commit, version=str(build))
    return _Stop(name=f"b{build}", trees=(tree,))


def _builds(repository: Repository, mainline: dict[int, str], since: str, until: str, every: int) -> list[int]:
    """Builds from `since` to `until`, inclusive."""

    def number(name: str) -> int:
        found = pin.find(repository, mainline, name)
        if found is None or not found.exact:
            raise UnknownRevision(
                f"{repository.git_dir}: no build, version or commit {name!r}", hint="name a build, such as b9660"
            )
        if mainline.get(found.build) != found.commit:
            raise ConfigError(f"{name} is not a commit of llama.cpp's mainline", hint="name a build, such as b9660")
        return found.build

    first, last = number(since), number(until) if until else max(mainline)
    between = [build for build in mainline if first <= build <= last]
    if not between:
        raise ConfigError(f"no build between {since} and {until or 'the newest'}", hint="--since is the older end")
    step = every or max(1, len(between) // POINTS)
    return sorted({*between[::step], between[-1]})


def _releases(
    series: Series, ollama: Repository, llama_cpp: Repository, mainline: dict[int, str], candidates: bool
) -> list[_Stop]:
    """Ollama's releases back to the oldest that the series serves, each with the llama.cpp that it contains, or that it
    pins, or the newest build before that."""
    stops: list[_Stop] = []
    for name, layout, tree in _served(series, ollama, candidates):
        if "llama.cpp" in layout.era.targets:
            served = pin.find(llama_cpp, mainline, layout.pin)
            llama_cpps = _build(llama_cpp, served.commit, served.build).trees if served else ()
        else:
            llama_cpps = (replace(tree, target="llama.cpp"),)
        stops.append(_Stop(name=name, trees=(*llama_cpps, tree)))
    return stops[::-1]


def _served(series: Series, ollama: Repository, candidates: bool) -> Iterator[tuple[str, Layout, Tree]]:
    """Ollama's releases back to the oldest that the series serves, newest first."""
    for name in releases(ollama, candidates=candidates).values():
        commit = ollama.resolve(f"refs/tags/{name}")
        try:
            layout = recognise(ollama, commit)
        except UnknownLayout:
            return
        tree = Tree(
            target="ollama", repository=ollama, commit=commit, version=ollama_version(name), era=layout.era.name
        )
        if layout.era.unserved or not serves(series, tree.era, tree.version):
            return
        yield name, layout, tree


def containing(series: Series, ollama: Repository) -> list[str]:
    """The served releases of Ollama whose trees contain a llama.cpp, oldest first."""
    found = _served(series, ollama, candidates=False)
    return [name for name, layout, _ in found if "llama.cpp" not in layout.era.targets][::-1]


def evenly(found: Sequence[_T], count: int) -> list[_T]:
    """`count` of them, evenly spread, both ends among them; all if there are no more."""
    if len(found) <= count:
        return [*found]
    step = (len(found) - 1) / (count - 1)
    return [found[round(step * number)] for number in range(count)]


def _survey(target: Target, series: Series, stops: Sequence[_Stop], memory: Memory, console: Console) -> Survey:
    parts, reasons = {}, dict[str, str]()
    for stop in stops:
        try:
            parts[stop.name] = stop.jobs(series)
        except ToolchainError as error:
            reasons[stop.name] = error.message
    memory.learn((job for jobs in parts.values() for job in jobs), console, f"judge {target}")
    states: dict[str, dict[str, EditState]] = {
        name: {state.name: state for job in jobs for state in memory.known[job.key].states}
        for name, jobs in parts.items()
    }
    points = []
    for stop in stops:
        tree = stop.trees[-1]
        failing = [name for name, state in states.get(stop.name, {}).items() if not state.holds]
        if stop.name in parts:
            failing += [path for one in stop.tested for path in _taken(series, one)]
        points.append(
            Point(
                name=stop.name,
                commit=tree.commit,
                date=tree.repository.commit(tree.commit).date[:10],
                failing=tuple(sorted(failing)),
                reason=reasons.get(stop.name, ""),
            )
        )
    names = dict.fromkeys((name, state.file) for found in states.values() for name, state in found.items())
    edits = [
        EditDrift(
            name=name,
            file=file,
            held=sum(found[name].holds for found in states.values() if name in found),
            points=sum(name in found for found in states.values()),
            elsewhere=tuple(point for point, found in states.items() if name not in found),
        )
        for name, file in names
    ]
    return Survey(
        target=target,
        points=tuple(points),
        edits=tuple(sorted(edits, key=lambda one: one.name)),
        turns=tuple(_turns(series, stops, states, memory, console)),
        held=sum(point.holds for point in points),
    )


def _taken(series: Series, tree: Tree) -> list[str]:
    """Names of files of ours that the tree has already."""
    own = [path for loaded in served_parts(series, tree) for path in loaded.files]
    return [f"files/{path}" for path in tree.contents(*own)] if own else []


def _turns(
    series: Series, stops: Sequence[_Stop], states: dict[str, dict[str, EditState]], memory: Memory, console: Console
) -> list[Turn]:
    """For each pair of neighbours where an edit's state differs, the commit between them that changed it."""
    found = []
    for before, after in pairwise(stops):
        old, new = states.get(before.name, {}), states.get(after.name, {})
        for name in old.keys() & new.keys():
            if old[name].holds != new[name].holds:
                commit = _culprit(series, before, after, name, old[name], memory, console)
                found.append(_turn(after, name, old[name], new[name], commit))
    return sorted(found, key=lambda turn: (turn.date, turn.edit))


def _turn(after: _Stop, name: str, old: EditState, new: EditState, commit: str) -> Turn:
    known = after.trees[-1].repository.commit(commit)
    return Turn(
        edit=name,
        holds=new.holds,
        point=after.name,
        commit=known.id,
        date=known.date[:10],
        subject=known.subject,
        reason=old.reason or new.reason,
    )


def _culprit(
    series: Series, before: _Stop, after: _Stop, name: str, old: EditState, memory: Memory, console: Console
) -> str:
    """Bisect the commits that touched the edit's files; the newer end if that finds none."""
    tree = after.trees[-1]
    looked = {old.file} | {
        probe.file
        for loaded in series.parts
        for edit in loaded.edits
        if edit.file == old.file
        for probe in (edit.upstreamed_when, edit.not_if)
        if probe
    }
    places = sorted({one.place(path) for one in after.tested for path in looked})
    span = f"{before.trees[-1].commit}..{tree.commit}"
    log = tree.repository.git("log", "--first-parent", "--reverse", "--format=%H", span, "--", *places)

    def holds(commit: str) -> bool:
        jobs = [job for job in after.at(commit).jobs(series) if job.file == old.file]
        memory.learn(jobs, console, f"bisect {name}")
        states = [state for job in jobs for state in memory.known[job.key].states]
        return next(state.holds for state in states if state.name == name)

    return first_changed(log.split(), lambda commit: holds(commit) != old.holds) or tree.commit


def first_changed(commits: Sequence[str], changed: Callable[[str], bool]) -> str:
    """The first of the commits, oldest first, for which `changed` is true, as for all later ones; else empty."""
    low, high = 0, len(commits)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if changed(commits[middle]) else (middle + 1, high)
    return commits[low] if low < len(commits) else ""
