"""The cache types that a release supports."""

from __future__ import annotations

from ...core.cachetypes import grammar
from ...core.cachetypes.grammar import CacheTypes
from ...core.cachetypes.table import type_table
from ...core.errors import ConfigError, Unhealthy
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


def require_proof(asked: str, what: str, log: str) -> str:
    """What remains unproven when the `log` states no cache `what`. Raises `Unhealthy`, unless f16 was asked for.

    This holds for releases without the series, too: upstream's llama-server prints the same line.
    """
    from ...serving import cachelog  # slow to import (NumPy, gguf), and needed only here

    unproven = f"the log states no cache {what}, so it is not proven that {asked} is in use"
    if set(grammar.parse(asked).names()) != {"f16"}:
        if not cachelog.stated(log) and (why := cachelog.unstated(log)) != cachelog.unstated(""):
            raise Unhealthy(f"{unproven}: {why}", hint="use a version of this toolkit that is of that time")
        raise Unhealthy(unproven, hint="is a variable set that silences llama-server's log?")
    return unproven
