"""The first stage: which commits of Ollama and llama.cpp a run works on."""

from __future__ import annotations

from pathlib import Path

from packaging.version import InvalidVersion, Version

from ..config import Config
from ..console import Console
from ..stages import Source, Sources, Target
from . import layout, pin
from .mirror import ensure_contents, is_url, open_mirror
from .repository import Repository


def prepare(config: Config, console: Console) -> Sources:
    """Open or mirror both repositories, recognise Ollama's era and resolve its pin.

    A URL is mirrored into the workspace; a local repository is read in place and never changed. Raises
    `NotARepository`, `UnknownRevision`, `UnknownLayout`, `PinMissing`, `FetchFailed`, `LockHeld`.
    """
    settings = config.sources
    ollama = open_origin("ollama", settings.ollama, config, console)
    commit = ollama.resolve(settings.ollama_ref or "HEAD")
    found = layout.recognise(ollama, commit)
    llama_cpp = open_origin("llama.cpp", settings.llama_cpp, config, console)
    if settings.llama_cpp_ref:
        served = pin.named(llama_cpp, settings.llama_cpp_ref)
    else:
        served = pin.resolve(llama_cpp, found.pin, nearest=settings.nearest_pin, console=console)
    for origin, repository, wanted in (
        (settings.ollama, ollama, commit),
        (settings.llama_cpp, llama_cpp, served.commit),
    ):
        if is_url(origin):
            ensure_contents(repository, wanted, console)
    sources = Sources(
        ollama=_source("ollama", settings.ollama, ollama, commit, release_name(ollama, commit)),
        llama_cpp=_source("llama.cpp", settings.llama_cpp, llama_cpp, served.commit, pin.describe(served)),
        era=found.era,
        pin=served,
    )
    for source in (sources.ollama, sources.llama_cpp):
        if source.dirty:
            names = ", ".join(source.dirty[:3]) + (" ..." if len(source.dirty) > 3 else "")
            console.warn(f"{source.origin}: {len(source.dirty)} uncommitted files take no part: {names}")
    return sources


def open_origin(target: Target, origin: str, config: Config, console: Console) -> Repository:
    """The mirror of a URL, or the local repository in place."""
    if is_url(origin):
        workspace = Path(config.workspace).expanduser().absolute()
        return open_mirror(target, origin, workspace, offline=config.sources.offline, console=console)
    # Offline, because a fetch of missing objects would write into the operator's repository.
    return Repository.open(Path(origin), offline=True)


def _source(target: Target, origin: str, repository: Repository, commit: str, describe: str) -> Source:
    return Source(
        target=target,
        origin=origin,
        git_dir=repository.git_dir,
        commit=commit,
        describe=describe,
        dirty=_dirty(Path(origin).expanduser().absolute(), repository) if not is_url(origin) else (),
    )


def _dirty(path: Path, repository: Repository) -> tuple[str, ...]:
    """Paths that a local work tree holds uncommitted."""
    if repository.git("rev-parse", "--is-bare-repository").strip() == "true" or path == repository.git_dir:
        return ()
    listed = repository.git(
        f"--work-tree={path}", "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=normal"
    )
    entries = listed.encode(errors="surrogateescape").decode(errors="replace").split("\0")
    return tuple(entry[3:] for entry in entries if entry)


def release_name(repository: Repository, commit: str) -> str:
    """The release at `commit`, else the newest release before it and the distance, else the short commit id.

    Of several tags on one commit (v1.2.0 and its last candidate) the highest version counts.
    """
    tags = repository.git("tag", "--points-at", commit).split()
    versions = {}
    for tag in tags:
        try:
            versions[Version(tag.removeprefix("release-").removeprefix("v"))] = tag
        except InvalidVersion:
            continue
    return versions[max(versions)] if versions else repository.describe(commit)
