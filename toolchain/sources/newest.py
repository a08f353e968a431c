"""Which Ollama is shipped where nobody named one: the newest stable release on which the series holds."""

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
    """What to ship, and which newer releases were passed over, newest first."""

    sources: Sources
    passed_over: tuple[PassedOver, ...]


def newest(run: Run, complaint: Callable[[Sources], str]) -> Newest:
    """The newest stable release on which the series holds; without any release, what HEAD names.

    `complaint` says why the series does not hold on a pair of trees; empty where it does. Releases are looked at from
    the newest down to the first that holds. Raises `NoReleaseHolds`, and the errors of repositories that cannot be
    read.
    """
    with open_both(run.config, run.console) as opened:
        tags = list(releases(opened.ollama).values())
        if not tags:
            run.console.warn(f"{opened.ollama.git_dir}: it has no tag of a release, so its HEAD is taken")
            return Newest(sources=_told(run, at(opened, "HEAD")), passed_over=())
        passed: list[PassedOver] = []
        for tag in tags:
            ref = f"refs/tags/{tag}"
            try:
                found = at(opened, ref)
                if not (reason := complaint(found)):
                    return Newest(sources=_told(run, found), passed_over=tuple(passed))
                last = bool(eras.of(found).unserved)
            except UnknownLayout as error:
                reason, last = error.message, True
            except PinMissing:
                reason, last = f"pins {opened.pin_of(ref)}, which is not in the mirror", False
            except FetchFailed as error:
                if _may_fetch(run):
                    raise
                reason, last = error.message, False
            passed.append(PassedOver(release=tag, reason=reason.splitlines()[0]))
            run.console.note(f"passed over {tag}: {passed[-1].reason}")
            if last:
                break  # those before it are of that era as well, or of an older one
    raise NoReleaseHolds(
        f"the series holds on none of Ollama's stable releases: {passed[0].release} {passed[0].reason}"
        + (f"; {passed[-1].release} {passed[-1].reason}" if len(passed) > 1 else ""),
        hint="./inv series.check --ollama-ref TAG says more of one; update the mirror, or name an older Ollama",
    )


def _told(run: Run, found: Sources) -> Sources:
    dirty_files(found, run.console)
    return found


def _may_fetch(run: Run) -> bool:
    """Whether what is missing could be fetched, so that a failure to do so is one of the network."""
    settings = run.config.sources
    return not settings.offline and (is_url(settings.ollama) or is_url(settings.llama_cpp))
