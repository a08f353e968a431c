"""The cache types that a release supports."""

from __future__ import annotations

from ...core.cachetypes.grammar import CacheTypes
from ...core.cachetypes.table import type_table
from ...core.errors import ConfigError
from ...stages import Release


def require_types(release: Release, asked: CacheTypes) -> None:
    """Raises `ConfigError` when `asked` names a type that the release lacks."""
    known = type_table(release.cache_types)
    for kind in asked.names():
        if kind not in known:
            raise ConfigError(
                f"deploy.kv_cache_type: release {release.id} has no cache type {kind!r}",
                hint=f"it has: {', '.join(sorted(known))}",
            )
