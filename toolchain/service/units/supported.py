"""The cache types that a release can serve with."""

from __future__ import annotations

from ...cachetypes.sizes import UPSTREAM_TYPES
from ...core.cachetype import CacheTypes
from ...core.errors import ConfigError
from ...stages import Release

UPSTREAM_NAMES = frozenset(kind.name for kind in UPSTREAM_TYPES)
"""cache types that llama.cpp has by itself"""


def require_types(release: Release, asked: CacheTypes) -> None:
    """Raises `ConfigError` when `asked` names a type that the release lacks."""
    known = {kind.name for kind in release.cache_types} | UPSTREAM_NAMES
    for kind in asked.names():
        if kind not in known:
            raise ConfigError(
                f"deploy.kv_cache_type: release {release.id} has no cache type {kind!r}",
                hint=f"it has: {', '.join(sorted(known))}",
            )
