"""From a task's flags to the examination of a fork."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ...core.errors import ConfigError, ToolchainError
from ...core.run import Run
from ...series import render
from ...series.manifest import Series, load_series
from ...sources import Repository, eras, open_origin
from ...sources.scratch import compat_patches
from ...stages import Sources
from . import conflicts as dry
from . import freshness as age
from . import metal
from .branch import Branch
from .join import Joined, open_fork

_OLD_DAYS = 7


def moment(text: str) -> datetime:
    """A date or time in ISO 8601, UTC by default; now for an empty text. Raises `ConfigError`."""
    if not text:
        return datetime.now(tz=UTC)
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--now {text!r} is not a date", hint="--now 2026-08-19, or 2026-08-19T12:00:00") from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


@contextmanager
def joined(run: Run) -> Iterator[Joined]:
    """The configured fork beside the configured llama.cpp."""
    upstream = open_origin("llama.cpp", run.config.sources.llama_cpp, run.config, run.console)
    with upstream, open_fork(run.config, upstream, run.console) as both:
        yield both


def freshness(run: Run, both: Joined, names: Sequence[str], now: datetime) -> age.Freshness:
    """Age and own work of the branches `names`, or of all."""
    settings = run.config.fork
    if settings.fresh_days > settings.stale_days:
        raise ConfigError(
            f"fork.fresh_days {settings.fresh_days:g} is more than fork.stale_days {settings.stale_days:g}",
            hint="a branch is fresh below the first, very stale above the second",
        )
    with run.console.step("age of the fork"):
        found = age.freshness(
            both,
            run.console,
            now=now,
            names=names,
            fresh_days=settings.fresh_days,
            stale_days=settings.stale_days,
            folder=_folder(run),
        )
    for what, newest in (
        ("upstream", found.newest.date),
        ("the fork", max(branch.tip_date for branch in found.branches)),
    ):
        old = (now - datetime.fromisoformat(newest)).days
        if old > _OLD_DAYS:
            run.console.warn(f"the newest commit of {what} here is {old} days old: is that mirror up to date?")
    return found


def conflicts(run: Run, both: Joined, branch: Branch, sources: Sources, series: Series) -> dry.Conflicts:
    """The branch merged onto the pin, with Ollama's patches and the series on top."""
    patches = third_parties(run, sources, series)
    with run.console.step(f"merge {branch.name} in memory"):
        return dry.conflicts(
            both,
            branch,
            sources.llama_cpp.commit,
            run.console,
            patches=patches,
            conflict_minutes=run.config.fork.conflict_minutes,
            folder=_folder(run),
        )


def _folder(run: Run) -> Path:
    return run.workspace / "forks"


def third_parties(run: Run, sources: Sources, series: Series) -> dict[str, bytes]:
    """Patches that llama.cpp gets besides the fork's work, in the order in which they are applied."""
    patches: dict[str, bytes] = {}
    era = eras.of(sources)
    if not era.unserved:
        with Repository(sources.ollama.git_dir) as ollama:
            patches = compat_patches(ollama, sources.ollama.commit, era.compat)
        try:
            rendered = render.render(series, sources)
            patches[render.COMPAT_PATCH] = next(
                target.diff.encode(errors="surrogateescape")
                for target in rendered.targets
                if target.target == "llama.cpp"
            )
        except ToolchainError as error:
            run.console.warn(f"the series is left out, because it does not apply to the pin: {error.message}")
    return patches


def audit(run: Run, both: Joined, names: Sequence[str]) -> metal.MetalBranches:
    """Metal kernels by name, on the branches `names` or all. Raises `FetchFailed` when sources are missing."""
    with run.console.step("Metal sources of every branch"):
        tips = both.chosen(names)
        if both.partial and both.obtain(metal.sources(both.repository, tips.values()), run.console):
            raise both.incomplete("a search of the Metal sources")
        return metal.audit(both.repository, tips, _folder(run))


def onto_the_pin(run: Run, sources: Sources, name: str, now: str) -> dry.Conflicts:
    """`conflicts` for one branch by name, or for the most promising one."""
    with joined(run) as both:
        found = freshness(run, both, (name,) if name else (), moment(now))
        return conflicts(run, both, found.branches[0], sources, load_series(run))
