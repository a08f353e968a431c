"""Mirrors of remote repositories: bare, and without file contents until a run needs them.

The first fetch proceeds in steps from older to newer tags, so that an interrupted one can resume. The mirror counts as
complete only after the last step.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from git import RemoteProgress
from git.util import CallableRemoteProgress

from ..core import locks
from ..core.console import Console, Step
from ..core.errors import FetchFailed
from .repository import Repository

_STEPS = 8
_WHOLE = "turboquant.whole"
_STAGES = {RemoteProgress.RECEIVING: "receiving objects", RemoteProgress.RESOLVING: "resolving deltas"}
_OPTIONS = ("--filter=blob:none", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no")
_IDS_PER_FETCH = 2000
_HINT = "check the URL and the network; fetched objects are kept; --set sources.offline=true uses a complete mirror"
_REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


def is_url(origin: str) -> bool:
    """Whether an origin is mirrored (a URL, or user@host:path) rather than used in place."""
    return "://" in origin or re.match(r"[\w.-]+@[\w.-]+:", origin) is not None


def open_mirror(name: str, url: str, workspace: Path, *, offline: bool, console: Console) -> Repository:
    """The mirror of `url`, cloned or updated unless `offline`.

    Raises `FetchFailed` when the remote cannot be read, or when `offline` without a complete mirror; `LockHeld` while
    another run updates it.
    """
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    git_dir = workspace / "mirrors" / f"{name}-{digest}"
    with _locked(git_dir):
        mirror = Repository(git_dir, own=True, offline=offline)
        whole = git_dir.is_dir() and mirror.succeeds("config", "--get", _WHOLE)
        if offline and not whole:
            raise FetchFailed(
                f"{url}: there is no complete mirror in {git_dir}, and sources.offline is set",
                hint="run once online, or name a local repository",
            )
        if not offline:
            _initialise(mirror, url)
            _update(mirror, url, whole=whole, console=console)
    return mirror


def ensure_contents(mirror: Repository, commit: str, console: Console) -> None:
    """Fetch the contents of files at `commit` that a partial mirror lacks. Raises `FetchFailed`, also when offline."""
    wanted = missing_blobs(mirror, commit)
    if not wanted:
        return
    if mirror.offline:
        raise FetchFailed(
            f"{mirror.git_dir}: the contents of {len(wanted)} files at {commit[:12]} were never fetched",
            hint="run once without sources.offline",
        )
    fetch_objects(mirror, wanted, console)


def fetch_objects(mirror: Repository, wanted: Iterable[str], console: Console) -> None:
    """Fetch these objects from the mirror's remote. Raises `FetchFailed`, `LockHeld`."""
    ids = sorted(wanted)
    with _locked(mirror.git_dir), console.step(f"fetch {len(ids)} objects for {mirror.git_dir.name}") as step:
        for some in _chunks(ids):
            _fetch(mirror, *_OPTIONS, "origin", *some, step=step)


def missing_blobs(repository: Repository, commit: str) -> set[str]:
    """Ids of the objects of the tree at `commit` that the repository lacks."""
    listed = repository.git("rev-list", "--objects", "--no-object-names", "--missing=print", f"{commit}^{{tree}}")
    return {line[1:] for line in listed.split() if line.startswith("?")}


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _IDS_PER_FETCH):
        yield ids[start : start + _IDS_PER_FETCH]


def _initialise(mirror: Repository, url: str) -> None:
    """Create the mirror, or delete what a killed fetch left. Safe, because we hold the lock."""
    mirror.git_dir.mkdir(parents=True, exist_ok=True)
    for left in (*mirror.git_dir.glob("*.lock"), *mirror.git_dir.glob("refs/**/*.lock")):
        left.unlink()
    for left in mirror.git_dir.glob("objects/pack/tmp_*"):
        left.unlink()
    mirror.git("init", "--quiet", "--bare", mirror.git_dir)
    for key, value in {
        "remote.origin.url": url,
        "remote.origin.promisor": "true",
        "remote.origin.partialCloneFilter": "blob:none",
        "extensions.partialClone": "origin",
        "core.repositoryFormatVersion": "1",
    }.items():
        mirror.git("config", key, value)


def _update(mirror: Repository, url: str, *, whole: bool, console: Console) -> None:
    with console.step(f"{'update' if whole else 'clone'} {url}") as step:
        head, tags = _remote_refs(mirror, url)
        if not whole:
            for tag in _milestones(tags):
                _fetch(mirror, *_OPTIONS, "origin", f"+refs/tags/{tag}:refs/tags/{tag}", step=step)
        _fetch(mirror, *_OPTIONS, "--prune", "origin", *_REFSPECS, step=step)
    if head:
        mirror.git("symbolic-ref", "HEAD", head)
    mirror.git("config", _WHOLE, "true")


def _remote_refs(mirror: Repository, url: str) -> tuple[str, list[str]]:
    """The branch that the remote's HEAD names, and its tags."""
    listed = mirror.git("ls-remote", "--symref", "origin", failure=FetchFailed, hint=_HINT)
    head, tags = "", []
    for line in listed.splitlines():
        value, _, name = line.partition("\t")
        if name == "HEAD" and value.startswith("ref: "):
            head = value.removeprefix("ref: ")
        elif name.startswith("refs/tags/") and not name.endswith("^{}"):
            tags.append(name.removeprefix("refs/tags/"))
    if not listed.strip():
        raise FetchFailed(f"{url}: the repository is empty", hint="check the URL")
    return head, tags


def _milestones(tags: list[str]) -> list[str]:
    """A few tags from old to new, by the numbers in their names.

    Only of the most frequent kind: llama.cpp has versions such as v0.1.0 beside builds such as b10000.
    """
    kinds = Counter(_kind(tag) for tag in tags)
    alike = [tag for tag in tags if _kind(tag) == max(kinds, key=kinds.__getitem__)]
    ordered = sorted(alike, key=lambda tag: [int(digits) for digits in re.findall(r"\d+", tag)])
    stride = len(ordered) // _STEPS
    return ordered[stride::stride] if stride else []


def _kind(tag: str) -> str:
    return re.split(r"\d", tag, maxsplit=1)[0]


def _fetch(mirror: Repository, *words: str, step: Step) -> None:
    def show(stage: int, done: float, total: float | None, rate: str) -> None:
        if total:
            name = _STAGES.get(stage & RemoteProgress.OP_MASK, "counting objects")
            step.update(done, total, f"{name}, {rate}" if rate else name)

    progress = CallableRemoteProgress(show)
    if mirror.fetch(*words, progress=progress) != 0:
        said = "\n  ".join(progress.other_lines + progress.error_lines)
        url = mirror.git("config", "remote.origin.url").strip()
        mirror.refuse(f"{url}: git fetch failed\n  {said}", FetchFailed, _HINT)


@contextmanager
def _locked(git_dir: Path) -> Iterator[None]:
    lock = git_dir.with_name(f"{git_dir.name}.lock")
    with locks.held(lock, f"{git_dir}: another run is fetching it", hint="wait until it ends"):
        yield
