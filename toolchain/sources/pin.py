"""From a pin such as b10488 to a commit of llama.cpp.

The number of a build is the length of its history (`git rev-list --count`), so a pin can be found in a mirror
that lacks the tag. It is looked up on the mainline alone. A fork's own commits have counts as well, and forks
are known to set build tags on them: a tag that disagrees with the mainline is not believed.
"""

from __future__ import annotations

import re
from collections import Counter

from ..console import Console
from ..errors import PinMissing, UnknownRevision
from ..stages import Pin
from .repository import Repository

_BUILD = re.compile(r"b(\d+)")
_LANDED = re.compile(r"\(#(\d+)\)$")
WEB_COMMITTER = "noreply@github.com"
_NEAR_THE_NEWEST = 0.9


def resolve(repository: Repository, name: str, *, nearest: bool, console: Console) -> Pin:
    """The commit that serves the pin `name`, a build tag or a commit.

    With `nearest`, a build that the repository lacks is stood in for by the newest mainline build before it.
    Raises `PinMissing`, naming the newest build there is.
    """
    build = _BUILD.fullmatch(name)
    if build is None:
        return _by_revision(repository, name)
    number = int(build.group(1))
    tagged = _tag(repository, name)
    if repository.is_shallow:
        if tagged:
            return Pin(name=name, commit=tagged, build=number, exact=True)
        raise PinMissing(
            f"llama.cpp {name} is not a tag of {repository.git_dir}, whose history is cut off (a shallow clone)",
            hint="git fetch --unshallow there, or name a URL or a whole clone",
        )
    builds = mainline(repository)
    found = builds.get(number)
    if found and tagged and found != tagged:
        console.warn(
            f"tag {name} is {tagged[:12]}, but build {number} of the mainline is {found[:12]}: using the latter"
        )
    elif not found and tagged and repository.count(tagged) == number:
        found = tagged
    if found:
        return Pin(name=name, commit=found, build=number, exact=True)
    return _stand_in(repository, name, number, builds, nearest=nearest, console=console)


def is_build(name: str) -> bool:
    """Whether a name is that of a build, as in b10488."""
    return _BUILD.fullmatch(name) is not None


def named(repository: Repository, ref: str) -> Pin:
    """The commit that the operator chose in place of the pin. Raises `UnknownRevision`."""
    commit = repository.resolve(ref)
    return Pin(name=ref, commit=commit, build=repository.count(commit), exact=True)


def builds(repository: Repository) -> dict[int, str]:
    """`mainline`, of a repository that has all of it. Raises `PinMissing` for an empty one and for a shallow clone."""
    if repository.is_shallow:
        raise PinMissing(
            f"{repository.git_dir}: its history is cut off (a shallow clone), so builds cannot be counted",
            hint="git fetch --unshallow there, or name a URL or a whole clone",
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

    A set of ancestors is one integer with a bit per commit, and is dropped after the last child took it up.
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


def _stand_in(
    repository: Repository, name: str, number: int, builds: dict[int, str], *, nearest: bool, console: Console
) -> Pin:
    missing = f"llama.cpp {name}, which Ollama pins, is not in {repository.git_dir}"
    if not builds:
        raise PinMissing(f"{missing}: it has no commits", hint="name another llama.cpp repository")
    last = max(builds)
    before = max((build for build in builds if build < number), default=None)
    there = f"{missing}; its newest build is b{last} ({builds[last][:12]}, {repository.commit(builds[last]).date[:10]})"
    if before is None:
        raise PinMissing(f"{there}, its first b{min(builds)}", hint="name a whole llama.cpp repository")
    if not nearest:
        raise PinMissing(there, hint=f"update that repository, or take b{before} with --set sources.nearest_pin=true")
    console.warn(f"{missing}: b{before} ({builds[before][:12]}), {number - before} builds before it, stands in")
    return Pin(name=name, commit=builds[before], build=before, exact=False)
