"""The Ollama to ship by default: the newest stable release to which the series applies."""

from __future__ import annotations

from collections.abc import Callable

from ..core.errors import FetchFailed, NoReleaseHolds, PinMissing, UnknownLayout
from ..core.records import record
from ..core.run import Run
from ..stages import Sources
from . import eras
from .mirror import is_url
from .origins import at, dirty_files, open_both
from .releases import releases


@record
class PassedOver:
    """A release that was not taken, and why."""

    release: str
    reason: str


@record
class Newest:
    """What to ship, and the newer releases that were passed over, newest first."""

    sources: Sources
    passed_over: tuple[PassedOver, ...]


def newest(run: Run, complaint: Callable[[Sources], str]) -> Newest:
    """The newest stable release to which the series applies; HEAD when there are no releases.

    `complaint` returns why the series does not apply to a pair of trees; empty when it does. Tries releases from the
    newest to the first that works. Raises `NoReleaseHolds`, and the errors of unreadable repositories.
    """
    with open_both(run.config, run.console) as opened:
        tags = list(releases(opened.ollama).values())
        if not tags:
            run.console.warn(f"{opened.ollama.git_dir}: no release tags; using HEAD")
            return Newest(sources=_warned(run, at(opened, "HEAD")), passed_over=())
        passed: list[PassedOver] = []
        for tag in tags:
            ref = f"refs/tags/{tag}"
            try:
                found = at(opened, ref)
                if not (reason := complaint(found)):
                    return Newest(sources=_warned(run, found), passed_over=tuple(passed))
                last = eras.is_past(found)
            except UnknownLayout as error:
                reason, last = error.message, False  # a layout newer than ours; older releases may apply
            except PinMissing:
                reason, last = f"pins {opened.pin_of(ref)}, which is not in the mirror", False
            except FetchFailed as error:
                if _may_fetch(run):
                    raise
                reason, last = error.message, False
            passed.append(PassedOver(release=tag, reason=reason.splitlines()[0]))
            run.console.note(f"passed over {tag}: {passed[-1].reason}")
            if last:
                break  # older releases belong to this era or an older one, and the series serves neither
    raise NoReleaseHolds(
        f"the series applies to none of Ollama's stable releases: {passed[0].release} {passed[0].reason}"
        + (f"; {passed[-1].release} {passed[-1].reason}" if len(passed) > 1 else ""),
        hint="./inv series.check --ollama-ref TAG shows details; update the mirror, or name an older Ollama",
    )


def _warned(run: Run, found: Sources) -> Sources:
    dirty_files(found, run.console)
    return found


def _may_fetch(run: Run) -> bool:
    """Whether missing objects can be fetched, so that a failure is a network failure."""
    settings = run.config.sources
    return not settings.offline and (is_url(settings.ollama) or is_url(settings.llama_cpp))
