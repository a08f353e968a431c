"""Ollama's releases, by the tags of its repository."""

from __future__ import annotations

from packaging.version import InvalidVersion, Version

from .repository import Repository


def releases(repository: Repository, *, candidates: bool = False) -> dict[Version, str]:
    """Tags of the releases by version, newest first; with `candidates` also those of release candidates."""
    found: dict[Version, str] = {}
    for tag in repository.git("tag", "--list", "v*").split():
        try:
            version = Version(tag.removeprefix("v"))
        except InvalidVersion:
            continue
        if candidates or not version.is_prerelease:
            found[version] = tag
    return dict(sorted(found.items(), reverse=True))
