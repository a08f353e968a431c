"""From a pin such as b10488 or v0.3.0 to a commit of llama.cpp.

The number of a build is the length of its history (`git rev-list --count`), so a pin can be found in a mirror
that lacks the tag. It is looked up on the mainline alone. A fork's own commits have counts as well, and forks
are known to set build tags on them, so a tag that disagrees with the mainline is ignored.

A version exists only as a tag. Its commit has a build number like any other, which decides which parts of the series
apply to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from ..core.console import Console
from ..core.errors import PinMissing, UnknownRevision
from ..stages import Pin
from . import versions
from .repository import Repository

_BUILD = re.compile(r"b(\d+)")
_LANDED = re.compile(r"\(#(\d+)\)$")
WEB_COMMITTER = "noreply@github.com"
_NEAR_THE_NEWEST = 0.9


def resolve(
    repository: Repository, name: str, *, nearest: bool, console: Console, builds: Mapping[int, str] | None = None
) -> Pin:
    """The commit that serves the pin `name`, a build, a version, a branch or a commit.

    With `nearest`, the newest earlier mainline build replaces a build or version that the repository lacks.
    `builds` is the mainline, if it is known. Raises `PinMissing`, naming the newest build there is.
    """
    if not is_numbered(name):
        return _by_revision(repository, name)
    if repository.is_shallow:
        return _by_tag(repository, name)
    builds = mainline(repository) if builds is None else builds
    found = find(repository, builds, name, console)
    if found is None or not (found.exact or nearest):
        raise _missing(repository, name, builds, found)
    if not found.exact:
        distance = f"{int(name[1:]) - found.build} builds older, " if is_build(name) else ""
        console.warn(
            f"llama.cpp {name}, which Ollama pins, is not in {repository.git_dir}: "
            f"b{found.build} ({found.commit[:12]}), {distance}is used instead"
        )
    return found


def find(repository: Repository, builds: Mapping[int, str], name: str, console: Console | None = None) -> Pin | None:
    """The commit of a pin, or with `exact` false the newest mainline commit before it; None if there is none.

    `builds` is the mainline. Ignored tags are reported to `console`.
    """
    if is_build(name):
        return _build(repository, builds, name, console)
    if versions.parse(name) is not None:
        return _version(repository, builds, name, console)
    try:
        return named(repository, name)
    except UnknownRevision:
        return None


def describe(pin: Pin) -> str:
    """The commit that serves a pin, as b10488, or v0.3.0 (b10700) for a version that is present."""
    return f"{pin.name} (b{pin.build})" if pin.exact and versions.parse(pin.name) is not None else f"b{pin.build}"


def is_build(name: str) -> bool:
    """Whether a name is that of a build, as in b10488."""
    return _BUILD.fullmatch(name) is not None


def is_numbered(name: str) -> bool:
    """Whether a name is that of a build or of a version, as in b10488 and v0.3.0."""
    return is_build(name) or versions.parse(name) is not None


def named(repository: Repository, ref: str) -> Pin:
    """The commit that the operator chose in place of the pin. Raises `UnknownRevision`."""
    tag = versions.tagged(repository, ref) if versions.parse(ref) is not None else None
    commit = tag.commit if tag else repository.resolve(ref)
    return Pin(name=ref, commit=commit, build=repository.count(commit), exact=True)


def builds(repository: Repository) -> dict[int, str]:
    """`mainline` of a complete repository. Raises `PinMissing` for an empty repository and for a shallow clone."""
    if repository.is_shallow:
        raise PinMissing(
            f"{repository.git_dir}: a shallow clone has no full history, so builds cannot be counted",
            hint="run git fetch --unshallow there, or name a URL or a full clone",
        )
    found = mainline(repository)
    if not found:
        raise PinMissing(f"{repository.git_dir}: it has no commits", hint="name another llama.cpp repository")
    return found


def mainline(repository: Repository) -> dict[int, str]:
    """Commits of upstream's mainline by build number, oldest first; empty for an empty repository.

    The mainline is the first-parent history of its newest commit. Upstream lands a change as one commit made
    on the web, its subject ending in the pull request's number. Among those, the newest one of the mainline has
    a high number (a fork counts from 1) and the straightest history (a fork's merges bend its own). Where no
    commit looks like this, the first-parent history of HEAD is the mainline.
    """
    if not repository.succeeds("rev-parse", "--verify", "--quiet", "HEAD^{commit}"):
        return {}
    log = repository.git("log", "--all", "--topo-order", "--reverse", "--format=%H%x00%P%x00%ce%x00%s")
    parents: dict[str, list[str]] = {}
    requests: dict[str, int] = {}
    for line in log.splitlines():
        commit, joined, committer, subject = line.split("\0", 3)
        parents[commit] = joined.split()
        landed = _LANDED.search(subject)
        if landed and committer == WEB_COMMITTER and len(parents[commit]) == 1:
            requests[commit] = int(landed.group(1))
    counts = counts_of(parents)
    if requests:
        straight: dict[str, int] = {}
        for commit, above in parents.items():
            straight[commit] = 1 + (straight[above[0]] if above else 0)
        newest = _NEAR_THE_NEWEST * max(requests.values())
        tip = max(
            (commit for commit, number in requests.items() if number >= newest),
            key=lambda commit: (straight[commit] - counts[commit], counts[commit]),
        )
    else:
        tip = repository.resolve("HEAD")
    line_of_builds = {}
    while True:
        line_of_builds[counts[tip]] = tip
        if not parents[tip]:
            return dict(sorted(line_of_builds.items()))
        tip = parents[tip][0]


def counts_of(parents: dict[str, list[str]]) -> dict[str, int]:
    """Length of the history of every commit; `parents` lists parents before children.

    A set of ancestors is one integer with a bit per commit. It is dropped once its last child has used it.
    """
    children = Counter(parent for above in parents.values() for parent in above)
    ancestors: dict[str, int] = {}
    counts: dict[str, int] = {}
    for position, (commit, above) in enumerate(parents.items()):
        bits = 1 << position
        for parent in above:
            bits |= ancestors[parent]
            children[parent] -= 1
            if not children[parent]:
                del ancestors[parent]
        if children[commit]:
            ancestors[commit] = bits
        counts[commit] = bits.bit_count()
    return counts


def _tag(repository: Repository, name: str) -> str | None:
    try:
        return repository.resolve(f"refs/tags/{name}")
    except UnknownRevision:
        return None


def _by_revision(repository: Repository, name: str) -> Pin:
    try:
        return named(repository, name)
    except UnknownRevision:
        raise PinMissing(
            f"llama.cpp {name}, which Ollama pins, is not in {repository.git_dir}",
            hint="update that repository, or choose a commit with --set sources.llama_cpp_ref=...",
        ) from None


def _by_tag(repository: Repository, name: str) -> Pin:
    """A pin in a shallow clone, by its tag. A version's build number comes from a build tag on its commit."""
    numbered = [name] if is_build(name) else []
    commit = _tag(repository, name)
    if not numbered and (tag := versions.tagged(repository, name)):
        commit = tag.commit
        numbered = [one for one in repository.git("tag", "--points-at", commit).split() if is_build(one)]
    if commit and numbered:
        return Pin(name=name, commit=commit, build=int(numbered[0][1:]), exact=True)
    what = "has no build number in" if commit else "is not a tag of"
    raise PinMissing(
        f"llama.cpp {name} {what} {repository.git_dir}, which is a shallow clone",
        hint="run git fetch --unshallow there, or name a URL or a full clone",
    )


def _build(repository: Repository, builds: Mapping[int, str], name: str, console: Console | None) -> Pin | None:
    number = int(name[1:])
    tagged, found = _tag(repository, name), builds.get(number)
    if found and tagged and found != tagged and console:
        console.warn(
            f"tag {name} is {tagged[:12]}, but build {number} of the mainline is {found[:12]}; using the latter"
        )
    elif not found and tagged and repository.count(tagged) == number:
        found = tagged
    if found:
        return Pin(name=name, commit=found, build=number, exact=True)
    return _at(builds, name, max((build for build in builds if build < number), default=0))


def _version(repository: Repository, builds: Mapping[int, str], name: str, console: Console | None) -> Pin | None:
    wanted = versions.parse(name)
    assert wanted is not None
    if tag := versions.tagged(repository, name):
        stated, build = versions.stated(repository, tag.commit), repository.count(tag.commit)
        # a candidate's tree states the version without its suffix
        if stated is None or stated.release == wanted.release:
            if builds.get(build) != tag.commit and console:
                console.warn(f"{tag.name} is {tag.commit[:12]}, which is not on the mainline")
            return Pin(name=name, commit=tag.commit, build=build, exact=True)
        if console:
            console.warn(f"{tag.name} is {tag.commit[:12]}, whose tree states {stated}; the tag is ignored")
    return _at(builds, name, versions.raised(repository, builds, wanted) if builds else 0)


def _at(builds: Mapping[int, str], name: str, build: int) -> Pin | None:
    return Pin(name=name, commit=builds[build], build=build, exact=False) if build else None


def _missing(repository: Repository, name: str, builds: Mapping[int, str], before: Pin | None) -> PinMissing:
    missing = f"llama.cpp {name}, which Ollama pins, is not in {repository.git_dir}"
    if not builds:
        return PinMissing(f"{missing}: it has no commits", hint="name another llama.cpp repository")
    last = max(builds)
    date = repository.commit(builds[last]).date[:10]
    message = f"{missing}; its newest build is b{last} ({builds[last][:12]}, {date})"
    if before is None:
        return PinMissing(f"{message}, its oldest b{min(builds)}", hint="name a complete llama.cpp repository")
    hint = f"update that repository, or take b{before.build} with --set sources.nearest_pin=true"
    return PinMissing(message, hint=hint)
