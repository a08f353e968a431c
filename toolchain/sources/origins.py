"""The first stage: find the commits of Ollama and llama.cpp that a run works on."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Self

from packaging.version import InvalidVersion, Version

from ..core import folders
from ..core.config import Config
from ..core.console import Console
from ..stages import Checkout, Sources, Target
from . import layout, pin
from .mirror import ensure_contents, is_url, open_mirror
from .repository import Repository


class Opened:
    """Both repositories of a run, opened or mirrored once. Use it as a context manager."""

    def __init__(self, config: Config, console: Console) -> None:
        self.settings, self.console = config.sources, console
        self.ollama = open_origin("ollama", self.settings.ollama, config, console)
        self.llama_cpp = open_origin("llama.cpp", self.settings.llama_cpp, config, console)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ollama.close()
        self.llama_cpp.close()

    @cached_property
    def builds(self) -> dict[int, str]:
        """llama.cpp's mainline; empty for a shallow clone."""
        return {} if self.llama_cpp.is_shallow else pin.mainline(self.llama_cpp)

    def pin_of(self, ref: str) -> str:
        """The llama.cpp that Ollama names at `ref`, verbatim."""
        return layout.recognise(self.ollama, self.ollama.resolve(ref)).pin


def open_both(config: Config, console: Console) -> Opened:
    """Open or mirror both repositories. Raises `NotARepository`, `FetchFailed`, `LockHeld`."""
    return Opened(config, console)


def prepare(config: Config, console: Console) -> Sources:
    """Open or mirror both repositories, recognise Ollama's era and resolve its pin.

    A URL is mirrored into the workspace; a local repository is read in place and never changed. Raises
    `NotARepository`, `UnknownRevision`, `UnknownLayout`, `PinMissing`, `FetchFailed`, `LockHeld`.
    """
    with open_both(config, console) as opened:
        sources = at(opened, config.sources.ollama_ref or "HEAD")
    dirty_files(sources, console)
    return sources


def at(opened: Opened, ref: str) -> Sources:
    """Both commits for one of Ollama's refs, their contents fetched. Raises the errors of `prepare`."""
    settings, ollama, llama_cpp = opened.settings, opened.ollama, opened.llama_cpp
    commit = ollama.resolve(ref)
    found = layout.recognise(ollama, commit)
    if settings.llama_cpp_ref:
        served = pin.named(llama_cpp, settings.llama_cpp_ref)
    else:
        served = pin.resolve(
            llama_cpp, found.pin, nearest=settings.nearest_pin, console=opened.console, builds=opened.builds
        )
    for origin, repository, wanted in (
        (settings.ollama, ollama, commit),
        (settings.llama_cpp, llama_cpp, served.commit),
    ):
        if is_url(origin):
            ensure_contents(repository, wanted, opened.console)
    return Sources(
        ollama=_source("ollama", settings.ollama, ollama, commit, release_name(ollama, commit)),
        llama_cpp=_source("llama.cpp", settings.llama_cpp, llama_cpp, served.commit, pin.describe(served)),
        era=found.era.name,
        pin=served,
    )


def dirty_files(sources: Sources, console: Console) -> None:
    """Warn of uncommitted files of a work tree, which are ignored."""
    for source in (sources.ollama, sources.llama_cpp):
        if source.dirty:
            names = ", ".join(source.dirty[:3]) + (" ..." if len(source.dirty) > 3 else "")
            console.warn(f"{source.origin}: {len(source.dirty)} uncommitted files are ignored: {names}")


def open_origin(target: Target, origin: str, config: Config, console: Console) -> Repository:
    """The mirror of a URL, or the local repository in place."""
    if is_url(origin):
        workspace = folders.workspace(config)
        return open_mirror(target, origin, workspace, offline=config.sources.offline, console=console)
    return Repository.open(Path(origin))


def open_checkout(checkout: Checkout) -> Repository:
    """The repository of a commit that `prepare` found: our mirror, which may fetch, or the local one."""
    return Repository(checkout.git_dir, own=is_url(checkout.origin))


def _source(target: Target, origin: str, repository: Repository, commit: str, describe: str) -> Checkout:
    return Checkout(
        target=target,
        origin=origin,
        git_dir=repository.git_dir,
        commit=commit,
        describe=describe,
        dirty=_dirty(Path(origin).expanduser().absolute(), repository) if not is_url(origin) else (),
    )


def _dirty(path: Path, repository: Repository) -> tuple[str, ...]:
    """Uncommitted paths of a local work tree."""
    if not (path / ".git").exists():
        return ()
    tree = Repository(repository.git_dir, work_tree=path)
    listed = tree.git("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=normal")
    entries = listed.encode(errors="surrogateescape").decode(errors="replace").split("\0")
    return tuple(entry[3:] for entry in entries if entry)


def release_name(repository: Repository, commit: str) -> str:
    """The release at `commit`, else the newest release before it and the distance, else the short commit id.

    Of several tags on one commit (v1.2.0 and its last candidate) the highest version is taken.
    """
    tags = repository.git("tag", "--points-at", commit).split()
    versions = {}
    for tag in tags:
        try:
            versions[Version(tag.removeprefix("release-").removeprefix("v"))] = tag
        except InvalidVersion:
            continue
    return versions[max(versions)] if versions else repository.describe(commit)
