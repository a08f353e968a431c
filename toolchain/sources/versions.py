"""llama.cpp's versions, beside its builds: v0.3.0 is a tag on one of the builds of the mainline.

Upstream states the version in CMakeLists.txt, raises it there shortly before a release, and then tags a commit with it
(#26839, #27477; scripts/make-release-checks.sh). So a tag that its own tree contradicts is not upstream's, and if a
tag is missing, the commit that raised the version is the newest one that is surely not after the release.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from packaging.version import Version

from ..core.errors import FetchFailed, UnknownRevision
from ..core.records import record
from .repository import Repository

_NAME = re.compile(r"(?:release-)?v?(\d+\.\d+\.\d+(?:-?rc\d+)?)")
_STATED_IN = "CMakeLists.txt"
_STATED = re.compile(rb"^\s*set\s*\(\s*LLAMA_VERSION_(MAJOR|MINOR|PATCH)\s+(\d+)\s*\)", re.MULTILINE)


@record
class Tagged:
    """A tag or branch that names a version."""

    name: str
    commit: str


def parse(name: str) -> Version | None:
    """The version that a name denotes, as in v0.3.0, release-v0.3.0 or 0.3.0; None for any other name."""
    found = _NAME.fullmatch(name)
    return Version(found[1]) if found else None


def tagged(repository: Repository, name: str) -> Tagged | None:
    """The tag of this name, else one with another spelling of the same version, else a branch of this name.

    The name must be that of a version.
    """
    version = _NAME.sub(r"\1", name)
    spellings = dict.fromkeys((name, f"v{version}", f"release-v{version}", version))
    for spelt, ref in (*((one, f"refs/tags/{one}") for one in spellings), (name, name)):
        try:
            return Tagged(name=spelt, commit=repository.resolve(ref))
        except UnknownRevision:
            continue
    return None


def stated(repository: Repository, commit: str) -> Version | None:
    """The version that a tree of llama.cpp states; None if it states none, or its files were never fetched."""
    try:
        content = repository.read_blob(commit, _STATED_IN) or b""
    except FetchFailed:
        return None
    parts = {name.decode(): number.decode() for name, number in _STATED.findall(content)}
    return Version(f"{parts['MAJOR']}.{parts['MINOR']}.{parts['PATCH']}") if len(parts) == 3 else None


def raised(repository: Repository, builds: Mapping[int, str], version: Version) -> int:
    """The newest of the `builds` that is surely not after the release of `version`: the one that raised it, the last
    one before a higher version, or the newest of all if no build reached that version."""
    numbers = {commit: build for build, commit in builds.items()}
    newest = max(builds)
    log = repository.git("log", "--first-parent", "--reverse", "--format=%H", builds[newest], "--", _STATED_IN).split()
    low, high = 0, len(log)
    while low < high:
        middle = (low + high) // 2
        found = stated(repository, log[middle])
        low, high = (low, middle) if found is not None and found >= version else (middle + 1, high)
    if low == len(log):
        return newest
    build = numbers[log[low]]
    return build if stated(repository, log[low]) == version else max((one for one in builds if one < build), default=0)


def releases(repository: Repository) -> dict[Version, Tagged]:
    """Every version with a tag in the repository, newest first."""
    listed = repository.git("for-each-ref", "--format=%(refname:strip=2)%09%(objectname)%09%(*objectname)", "refs/tags")
    found: dict[Version, Tagged] = {}
    for line in listed.splitlines():
        name, own, peeled = line.split("\t")
        version = parse(name)
        if version is not None and (version not in found or name.startswith("v")):
            found[version] = Tagged(name=name, commit=peeled or own)
    return dict(sorted(found.items(), reverse=True))
